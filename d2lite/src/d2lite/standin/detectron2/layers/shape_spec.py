"""The shape of a feature map, as far as builders know it."""

from dataclasses import dataclass


@dataclass
class ShapeSpec:
    """Channels, height and width of a map, and the image's pixels per pixel of it; None for what is not known."""

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
