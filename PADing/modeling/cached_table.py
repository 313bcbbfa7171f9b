"""Constant tensors that depend on a few numbers alone, such as position tables, made once for each."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")


def cached_table(make: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Decorator: keep the 16 tensors last asked for, except while ``torch.compile`` traces.

    Sizes that vary, as in evaluation, push each other out. Making one again would cost more than time: copying even a
    few numbers to a GPU waits for everything queued there. Arguments must be hashable.
    """

    def make_constant(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():  # usable in training, whoever asks first
            return make(*args, **kwargs)

    cached: Callable[..., Tensor] = lru_cache(maxsize=16)(make_constant)

    @wraps(make)
    def table(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        return (make if torch.compiler.is_compiling() else cached)(*args, **kwargs)

    return table
