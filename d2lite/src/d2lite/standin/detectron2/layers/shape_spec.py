"""The shape of a feature map, as far as builders know it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ShapeSpec:
    """``None`` stands for what is not known.

    Attributes:
        channels, height, width: of the map.
        stride: pixels of the image that one pixel of the map stands for, in each direction.
    """

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
