"""Bit-equal repetition (``DETERMINISTIC``): deterministic algorithms only, and a clear message where there is none."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from detectron2.config import CfgNode

from PADing.errors import UserError

# cuBLAS repeats its sums only with a workspace of fixed size.
WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
SIGN = "does not have a deterministic implementation"


def determinism_problems(cfg: CfgNode) -> Iterator[str]:
    """Settings that contradict ``DETERMINISTIC``."""
    if not cfg.DETERMINISTIC:
        return
    if cfg.SEED < 0:
        yield f"DETERMINISTIC needs a seed, but SEED is {cfg.SEED}. Set a number of at least 0."
    if cfg.CUDNN_BENCHMARK:
        yield "DETERMINISTIC and CUDNN_BENCHMARK exclude each other, because it may choose other algorithms. Set one."


@contextmanager
def deterministic(cfg: CfgNode) -> Iterator[None]:
    """With ``DETERMINISTIC``, allow only deterministic algorithms inside; afterwards all is as before.

    UserError if an operation has none on this device.
    """
    if not cfg.DETERMINISTIC:
        yield
        return
    os.environ.setdefault(*WORKSPACE)
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.deterministic
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    try:
        with explaining_determinism():
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.deterministic = cudnn


@contextmanager
def explaining_determinism() -> Iterator[None]:
    """Turn PyTorch's error for an operation without a deterministic form into a ``UserError``."""
    try:
        yield
    except RuntimeError as error:
        if SIGN not in str(error):
            raise
        name = str(error).partition(" ")[0]
        problem = f"--deterministic: the operation {name} has no deterministic form on this device."
        raise UserError(f"{problem} Leave out --deterministic (DETERMINISTIC False), or use the CPU.") from error
