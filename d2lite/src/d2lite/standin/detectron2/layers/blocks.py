"""The base class of convolutional blocks."""

from torch import nn

from .batch_norm import FrozenBatchNorm2d


class CNNBlockBase(nn.Module):
    """A part of a network with ``in_channels``, ``out_channels`` and ``stride``, which can be frozen."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.stride = stride
        self.in_channels, self.out_channels = in_channels, out_channels

    def freeze(self) -> "CNNBlockBase":
        """Stop training all parameters and freeze the batch norms; returns the block."""
        FrozenBatchNorm2d.convert_frozen_batchnorm(self.requires_grad_(False))
        return self
