"""Retries a function when the GPU's memory is full."""

import functools
import logging
from collections.abc import Callable

import torch


def retry_if_cuda_oom(func: Callable) -> Callable:
    """``func``, tried again when CUDA has no memory left: with unused memory given back, then on the CPU.

    For the third attempt, tensors that are arguments themselves are copied to the CPU. ``func`` must not change
    anything.
    """

    @functools.wraps(func)
    def persistent(*args, **kwargs):
        for attempt in range(3):
            # Outside of the handler, whose exception's traceback would keep the failed attempt's tensors alive.
            if attempt == 1:
                torch.cuda.empty_cache()
            if attempt == 2:
                name = getattr(func, "__qualname__", repr(func))
                logging.getLogger(__name__).warning("GPU memory is full: %s runs on the CPU, which is slower.", name)
                args = tuple(map(_on_cpu, args))
                kwargs = {key: _on_cpu(value) for key, value in kwargs.items()}
            try:
                return func(*args, **kwargs)
            except RuntimeError as error:
                if attempt == 2 or "CUDA out of memory. " not in str(error):
                    raise

    return persistent


def _on_cpu(value):
    return value.cpu() if isinstance(value, torch.Tensor) else value
