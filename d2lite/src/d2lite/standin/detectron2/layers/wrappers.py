"""Small additions to PyTorch's own functions and layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """``torch.cat`` that does not copy a single tensor."""
    assert isinstance(tensors, (list, tuple)), "cat takes a list of tensors"
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)


def shapes_to_tensor(x: Sequence[int], device: torch.device | str | None = None) -> Tensor:
    """A list of sizes as an int64 tensor."""
    return torch.as_tensor([int(size) for size in x], dtype=torch.int64, device=device)


class Conv2d(nn.Conv2d):
    """``torch.nn.Conv2d`` followed by an optional normalization and activation.

    Args:
        norm: a module, applied to the output; its entries appear as ``norm.*`` in the state dict.
        activation: a callable, applied last.
    """

    def __init__(
        self, *args, norm: nn.Module | None = None, activation: Callable[[Tensor], Tensor] | None = None, **kwargs
    ):
        super().__init__(*args, **kwargs)
        self.norm = norm
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W')."""
        x = super().forward(x)
        if self.norm is not None:
            x = self.norm(x)
        if self.activation is not None:
            x = self.activation(x)
        return x
