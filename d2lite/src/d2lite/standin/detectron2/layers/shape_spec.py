"""The shape of a feature map, for builders."""

from dataclasses import dataclass


@dataclass
class ShapeSpec:
    """Channels, height, width and stride of a feature map; None for unknown ones."""

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
