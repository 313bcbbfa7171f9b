"""Surviving a lack of GPU memory."""

import logging
from collections.abc import Callable
from contextlib import contextmanager
from functools import wraps

import torch

__all__ = ["retry_if_cuda_oom"]


@contextmanager
def _ignore_cuda_oom():
    try:
        yield
    except RuntimeError as error:
        if "CUDA out of memory. " not in str(error):
            raise


def retry_if_cuda_oom(func: Callable) -> Callable:
    """Wrap ``func`` so that running out of CUDA memory is answered by two more attempts.

    First the cache is emptied and the call repeated; then the call is repeated with its CUDA tensors (those that are
    themselves arguments, not those inside lists or objects) moved to the CPU. So ``func`` must be free of side effects
    and work on either device, and its result may be on the CPU.
    """

    def to_cpu(value):
        return value.to(device="cpu") if isinstance(value, torch.Tensor) and value.is_cuda else value

    @wraps(func)
    def wrapped(*args, **kwargs):
        with _ignore_cuda_oom():
            return func(*args, **kwargs)
        torch.cuda.empty_cache()
        with _ignore_cuda_oom():
            return func(*args, **kwargs)
        logging.getLogger(__name__).info("Attempting to copy inputs of %s to CPU due to CUDA OOM", func)
        return func(*[to_cpu(x) for x in args], **{name: to_cpu(x) for name, x in kwargs.items()})

    return wrapped
