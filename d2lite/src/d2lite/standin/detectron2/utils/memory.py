"""What to do when a GPU's memory is full."""

import functools
import logging
from collections.abc import Callable

import torch


def retry_if_cuda_oom(func: Callable) -> Callable:
    """A version of ``func`` that tries harder when CUDA has no memory left.

    PyTorch's unused memory is given back before the second attempt. For the third, tensors on GPUs are copied to the
    CPU, if they are arguments themselves; what lies inside of lists, dicts or objects stays. ``func`` is run anew each
    time, so it must not change anything, and must work on either device. The result stays on the device that it was
    made on.
    """

    @functools.wraps(func)
    def persistent(*args, **kwargs):
        remedies = [_on_cpu, _with_empty_cache]
        while True:
            try:
                return func(*args, **kwargs)
            except RuntimeError as error:
                if not remedies or "CUDA out of memory. " not in str(error):
                    raise
            # Out of the handler: the exception's traceback would keep the failed attempt's tensors alive.
            args, kwargs = remedies.pop()(func, args, kwargs)

    return persistent


def _with_empty_cache(func: Callable, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    torch.cuda.empty_cache()
    return args, kwargs


def _on_cpu(func: Callable, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    name = getattr(func, "__qualname__", repr(func))
    logging.getLogger(__name__).warning("GPU memory is full: %s is computed on the CPU, which is slower.", name)

    def moved(value):
        return value.cpu() if isinstance(value, torch.Tensor) else value

    return tuple(map(moved, args)), {name: moved(value) for name, value in kwargs.items()}
