"""The base class of backbones."""

from abc import ABC, abstractmethod

from detectron2.layers import ShapeSpec
from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """Makes feature maps ``_out_features`` with ``_out_feature_channels`` and ``_out_feature_strides``."""

    _out_features: list[str]
    _out_feature_channels: dict[str, int]
    _out_feature_strides: dict[str, int]

    @abstractmethod
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Feature maps, by name, of images (N, C, H, W)."""

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of the feature maps that ``forward`` returns."""
        channels, strides = self._out_feature_channels, self._out_feature_strides
        return {name: ShapeSpec(channels[name], stride=strides[name]) for name in self._out_features}

    @property
    def size_divisibility(self) -> int:
        """The height and width of images must be multiples of this; 0: any size."""
        return 0
