"""A cache for constant tensors that depend on a few numbers, such as position tables."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")


def cached_table(make: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Decorator: cache the 16 tensors used last, except while ``torch.compile`` traces. Arguments must be hashable.

    Without the cache, every call would copy numbers to the GPU, which waits for all work queued there.
    """

    def make_constant(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():  # usable in training even if made during inference
            return make(*args, **kwargs)

    cached: Callable[..., Tensor] = lru_cache(maxsize=16)(make_constant)

    @wraps(make)
    def table(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        return (make if torch.compiler.is_compiling() else cached)(*args, **kwargs)

    return table
