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
    """Seed NumPy, PyTorch, Python and child processes' hashes; ValueError outside 0 to 2**32 - 1; None draws one."""
    if seed is None:
        seed = secrets.randbelow(2**31)
        logging.getLogger(__name__).info("No seed is set: using %d, drawn at random.", seed)
    np.random.seed(seed)  # first, because NumPy is the one that refuses
    for generator in (random.seed, torch.manual_seed):
        generator(seed)
    os.environ["PYTHONHASHSEED"] = str(seed)
