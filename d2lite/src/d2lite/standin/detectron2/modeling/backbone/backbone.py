"""The base class of backbones."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod

from detectron2.layers import ShapeSpec
from torch import Tensor, nn


class Backbone(nn.Module, metaclass=ABCMeta):
    """A network from images to named feature maps.

    Subclasses set ``_out_features`` (list of names), ``_out_feature_channels`` and ``_out_feature_strides`` (dicts by
    name), or override ``output_shape``.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) images to feature maps by name."""

    @property
    def size_divisibility(self) -> int:
        """Height and width of the input must be multiples of it; 0: any size will do."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Further demands on the size of the input; none."""
        return {}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature map, by name."""
        return {
            name: ShapeSpec(channels=self._out_feature_channels[name], stride=self._out_feature_strides[name])
            for name in self._out_features
        }
