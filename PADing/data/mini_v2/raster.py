"""Draws polygons on a grid in whole numbers, so that every machine gets the same pixels."""

from dataclasses import dataclass

import numpy as np

from PADing.data.mini_v2.shapes import SHAPES, UNIT
from PADing.data.mini_v2.turns import ONE, cosine, sine

__all__ = ["PIXEL", "Pose", "coordinates", "inside"]

PIXEL = 256  # parts of a pixel
_SAMPLE = PIXEL // 2  # each pixel has 2 x 2 samples


@dataclass(frozen=True)
class Pose:
    """Where an object lies: middle and radius in 1 / ``PIXEL`` pixels, angle in 1 / ``TURN`` circles."""

    x: int
    y: int
    radius: int
    angle: int

    def box(self, size: int) -> tuple[int, int, int, int]:
        """The pixels that any shape may touch, within the image: left, top, right, bottom (the last two excluded)."""
        reach = self.radius * 5 // 4
        low = [max(0, (at - reach) // PIXEL) for at in (self.x, self.y)]
        high = [min(size, (at + reach) // PIXEL + 1) for at in (self.x, self.y)]
        return (*low, *high)  # type: ignore[return-value]


def _samples(start: int, stop: int) -> np.ndarray:
    return np.arange(2 * start, 2 * stop, dtype=np.int64) * _SAMPLE + _SAMPLE // 2


def inside(shape: str, pose: Pose, box: tuple[int, int, int, int]) -> np.ndarray:
    """Which samples of ``box`` lie in the shape: (2 height, 2 width) bool, by the even-odd rule."""
    left, top, right, bottom = box
    corners = SHAPES[shape]
    cos, sin = int(cosine(pose.angle)), int(sine(pose.angle))
    x = pose.x + (corners[:, 0] * cos - corners[:, 1] * sin) * pose.radius // (UNIT * ONE)
    y = pose.y + (corners[:, 0] * sin + corners[:, 1] * cos) * pose.radius // (UNIT * ONE)
    x2, y2 = np.roll(x, -1), np.roll(y, -1)
    swap = y > y2
    x, x2, y, y2 = np.where(swap, x2, x), np.where(swap, x, x2), np.where(swap, y2, y), np.where(swap, y, y2)
    x, y, x2, y2 = (values[:, None] for values in (x, y, x2, y2))
    rows = _samples(top, bottom)[None]
    edge, row = np.nonzero((y <= rows) & (rows < y2))
    height = (y2 - y)[edge, 0]
    # Where the edge crosses the row, as a fraction with the denominator `height`; then the first sample at or after it.
    crossing = x[edge, 0] * height + (rows[0, row] - y[edge, 0]) * (x2 - x)[edge, 0]
    first = -(((left * PIXEL + _SAMPLE // 2) * height - crossing) // (_SAMPLE * height))
    width = 2 * (right - left)
    swaps = np.zeros((rows.shape[1], width + 1), dtype=np.int64)
    np.add.at(swaps, (row, np.clip(first, 0, width)), 1)
    return np.cumsum(swaps[:, :width], axis=1) % 2 == 1


def coordinates(pose: Pose, box: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Object coordinates (u, v) of the samples of ``box``: int32 in 1 / ``UNIT`` of the radius."""
    left, top, right, bottom = box
    across, down = (_samples(left, right) - pose.x)[None], (_samples(top, bottom) - pose.y)[:, None]
    shift = 20
    cos, sin = ((int(f(pose.angle)) * UNIT << shift) // (ONE * pose.radius) for f in (cosine, sine))
    u, v = (across * cos + down * sin) >> shift, (down * cos - across * sin) >> shift
    return u.astype(np.int32), v.astype(np.int32)
