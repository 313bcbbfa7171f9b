"""Random seeds, and the small helpers that depend on the environment."""

import logging
import os
import random
import time

import numpy as np
import torch

__all__ = ["seed_all_rng", "TORCH_VERSION"]

TORCH_VERSION: tuple[int, ...] = tuple(int(x) for x in torch.__version__.split(".")[:2])


def seed_all_rng(seed: int | None = None) -> None:
    """Seed Python, numpy and torch (CPU and CUDA).

    Args:
        seed: None picks one from the process id, the clock and the system's source of randomness, and logs it.
    """
    if seed is None:
        seed = os.getpid() + time.time_ns() % 10**9 + int.from_bytes(os.urandom(2), "big")
        logging.getLogger(__name__).info("Using a generated random seed %d", seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)  # all CUDA devices as well
    random.seed(seed)
    os.environ["PYTHONHASHSEED"] = str(seed)  # for processes started from here
