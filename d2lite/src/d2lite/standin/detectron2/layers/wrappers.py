"""PyTorch's convolution and functions with the extras that Detectron2's users expect."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class Conv2d(nn.Conv2d):
    """A convolution that can bring its norm and its activation along, in this order.

    Args:
        norm: a module; its state has the prefix ``norm.``.
        activation: a function of tensors.
        others: of ``torch.nn.Conv2d``.
    """

    def __init__(
        self,
        *others,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        **named_others,
    ):
        super().__init__(*others, **named_others)
        self.norm, self.activation = norm, activation

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W')."""
        y = super().forward(x)
        for after in (self.norm, self.activation):
            y = y if after is None else after(y)
        return y


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Concatenate a list of tensors; a list of one gives that very tensor, without a copy."""
    assert isinstance(tensors, (list, tuple)), f"cat needs a list of tensors, got a {type(tensors).__name__}."
    only, *more = tensors
    return torch.cat(tensors, dim) if more else only


def shapes_to_tensor(x: Sequence[int], device: torch.device | str | None = None) -> Tensor:
    """Lengths as an int64 tensor of one dimension."""
    return torch.tensor(list(map(int, x)), dtype=torch.int64, device=device)
