"""One seed for every random number generator."""

import logging
import os
import random
import secrets

import numpy as np
import torch

from d2lite.omitted import omitted_names

__getattr__ = omitted_names(__name__, "TORCH_VERSION fixup_module_metadata setup_environment")


def seed_all_rng(seed: int | None = None) -> None:
    """Seed the generators of NumPy, PyTorch (on all devices) and Python, and the string hashes of child processes.

    Args:
        seed: from 0 to 2**32 - 1; by default one that the system draws, which is logged.

    Raises:
        ValueError: a seed outside that range; no generator is changed.
    """
    if seed is None:
        seed = secrets.randbelow(2**31)
        logging.getLogger(__name__).info("No seed is set: using %d, drawn at random.", seed)
    np.random.seed(seed)  # first, because NumPy is the one that refuses
    for generator in (random.seed, torch.manual_seed):
        generator(seed)
    os.environ["PYTHONHASHSEED"] = str(seed)
