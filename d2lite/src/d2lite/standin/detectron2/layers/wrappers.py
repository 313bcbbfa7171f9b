"""PyTorch's convolution and functions with the extras that Detectron2's users expect."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .batch_norm import FrozenBatchNorm2d


class Conv2d(nn.Conv2d):
    """PyTorch's convolution, followed by a ``norm`` (a module) and an ``activation`` (a function)."""

    def __init__(
        self, *args, norm: nn.Module | None = None, activation: Callable[[Tensor], Tensor] | None = None, **kwargs
    ):
        super().__init__(*args, **kwargs)
        self.norm, self.activation = norm, activation

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W')."""
        if type(self.norm) is FrozenBatchNorm2d:
            # A scale and an offset of each output channel: a part of the kernel, and of the bias.
            scale, offset = self.norm.line()
            bias = offset if self.bias is None else offset + self.bias * scale
            y = self._conv_forward(x, self.weight * scale[:, None, None, None], bias)
        else:
            y = super().forward(x)
            y = y if self.norm is None else self.norm(y)
        return y if self.activation is None else self.activation(y)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Concatenate a list of tensors; a list of one gives that very tensor, without a copy."""
    assert isinstance(tensors, (list, tuple)), f"cat needs a list of tensors, got a {type(tensors).__name__}."
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)


def shapes_to_tensor(x: Sequence[int], device: torch.device | str | None = None) -> Tensor:
    """Lengths as an int64 tensor of one dimension."""
    return torch.tensor(list(map(int, x)), dtype=torch.int64, device=device)
