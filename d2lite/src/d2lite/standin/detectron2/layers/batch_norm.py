"""Normalization layers, and their names in a config."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class FrozenBatchNorm2d(nn.Module):
    """``(x - running_mean) / sqrt(running_var + eps) * weight + bias``, by channel, in buffers; at first ``x``."""

    _version = 3
    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5):
        super().__init__()
        self.num_features, self.eps = num_features, eps
        # In the order of published checkpoints.
        for name, value in {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0 - eps}.items():
            self.register_buffer(name, torch.full((num_features,), value))
        self.register_buffer("num_batches_tracked", None)  # None is not saved

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape and dtype."""
        if x.requires_grad:
            # batch_norm would store its input for the backward pass; a product with a constant does not.
            slope, offset = self.line()
            return x * slope.to(x.dtype)[:, None, None] + offset.to(x.dtype)[:, None, None]
        return functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)

    def line(self) -> tuple[Tensor, Tensor]:
        """Slope and offset of each channel, (C,) each: the layer computes ``slope * x + offset``."""
        slope = self.weight * torch.rsqrt(self.running_var + self.eps)
        return slope, self.bias - self.running_mean * slope

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *others):
        """Complete older files: version 1 had statistics in weight and bias; batches need not be counted."""
        optional = {"num_batches_tracked": self.num_batches_tracked}
        if (local_metadata.get("version") or 1) == 1 and f"{prefix}weight" in state_dict:
            optional |= {"running_mean": self.bias.new_zeros(()), "running_var": self.bias.new_ones(())}
        for name, value in optional.items():
            if value is not None:
                state_dict.setdefault(prefix + name, value.expand_as(getattr(self, name)))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *others)

    @classmethod
    def convert_frozen_batchnorm(cls, module: nn.Module) -> nn.Module:
        """Freeze the 2D and synchronized batch norms of a network in place; of a norm itself, return a frozen one."""
        if not isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm)):
            for name, part in list(module.named_children()):
                setattr(module, name, cls.convert_frozen_batchnorm(part))
            return module
        frozen = cls(module.num_features, eps=module.eps)
        for name in frozen._buffers:
            value = getattr(module, name)
            if value is not None:  # a norm may have no weights or no statistics
                setattr(frozen, name, value.detach().clone())
        return frozen.train(module.training)

    def extra_repr(self) -> str:
        """For ``print(model)``."""
        return f"{self.num_features}, eps={self.eps}"


class LayerNorm(nn.LayerNorm):
    """PyTorch's layer norm for feature maps (N, C, H, W): each position is normalized over its channels."""

    def __init__(self, channels: int, eps: float = 1e-6):
        super().__init__(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BN": nn.BatchNorm2d,
    "FrozenBN": FrozenBatchNorm2d,
    "GN": lambda channels: nn.GroupNorm(num_groups=32, num_channels=channels),
    "LN": LayerNorm,
    "SyncBN": nn.SyncBatchNorm,
    "nnSyncBN": nn.SyncBatchNorm,
}


def get_norm(norm: str | Callable[[int], nn.Module] | None, out_channels: int) -> nn.Module | None:
    """A new layer, by a name out of ``NORMS`` or a function of the number of channels; None for "" and None."""
    if isinstance(norm, str) and norm:
        if norm not in NORMS:
            raise KeyError(f"No normalization is called {norm!r}. Known: {', '.join(NORMS)}, or '' for none.")
        norm = NORMS[norm]
    return norm(out_channels) if callable(norm) else None
