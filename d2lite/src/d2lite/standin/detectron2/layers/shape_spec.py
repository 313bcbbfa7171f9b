"""What a builder must know about a feature map."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ShapeSpec:
    """Channels, height and width of a feature map, and its stride in pixels of the image; None: not known."""

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
