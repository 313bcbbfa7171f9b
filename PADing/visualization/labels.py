"""Class names on images: readable at any size of the image, and never one over another."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

GRID = 96  # places are looked for on a grid of at most so many points a side
POINTS, SHIFTS = 12, 6  # points of a segment that are tried, innermost first, then rows above and below the innermost


@dataclass(frozen=True)
class Label:
    """A name for a region, (h, w) bool, of the part of an image that begins at ``top``, ``left``.

    ``box`` is the RGB of the box behind the text; labels marked ``first`` are placed before others.
    """

    text: str
    box: tuple[int, int, int]
    region: np.ndarray
    top: int
    left: int
    first: bool = False


def draw_labels(image: np.ndarray, labels: Sequence[Label], size: int) -> None:
    """Write names into (H, W, 3) uint8 RGB, each on its region or just beside it, in lines of ``size`` pixels.

    A name that has no free place is left out: those marked ``first`` are placed first, then those of small regions.
    """
    taken = np.empty((0, 4), dtype=int)
    for label in sorted(labels, key=lambda item: (not item.first, int(item.region.sum()))):
        patch = _written(label.text, label.box, size)
        height, width = patch.shape[:2]
        if height > image.shape[0] or width > image.shape[1]:
            continue
        for y, x in _places(label, height):
            top = int(np.clip(y - height // 2, 0, image.shape[0] - height))
            left = int(np.clip(x - width // 2, 0, image.shape[1] - width))
            box = np.array([top, left, top + height, left + width])
            if not ((taken[:, :2] < box[2:]) & (taken[:, 2:] > box[:2])).all(axis=1).any():
                image[top : top + height, left : left + width] = patch
                taken = np.vstack([taken, box])
                break


def _places(label: Label, height: int) -> Iterator[tuple[int, int]]:
    """Points (y, x) of the image to centre the name on, the best first."""
    step = max(1, -(-max(label.region.shape) // GRID))
    # The edge of the part is outside of the region, but the first row of the grid need not be.
    region = np.pad(label.region[::step, ::step], 1)
    if not region.any():
        whole = np.pad(label.region, 1).astype(np.uint8)
        region = cv2.resize(whole, region.shape[::-1], interpolation=cv2.INTER_AREA).astype(bool)
        region[region.shape[0] // 2, region.shape[1] // 2] = True
    depth = cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, 3)
    points = []
    for _ in range(POINTS):
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        if depth[y, x] <= 0:
            break
        points.append((label.top + (int(y) - 1) * step, label.left + (int(x) - 1) * step))
        apart = max(1, height // step)
        depth[max(0, y - apart) : y + apart + 1, max(0, x - 2 * apart) : x + 2 * apart + 1] = 0
    yield from points
    for shift in range(1, SHIFTS + 1):
        for sign in (-1, 1):
            yield points[0][0] + sign * shift * (height + 1), points[0][1]


def _written(text: str, box: tuple[int, int, int], size: int) -> np.ndarray:
    """White text on a box: (h, w, 3) uint8."""
    font, margin = _font(size), max(2, size // 6)
    width = int(font.getlength(text)) + 2 * margin + 1
    patch = Image.new("RGB", (width, size + 2 * margin), box)
    ImageDraw.Draw(patch).text((margin, margin + size // 2), text, fill="white", font=font, anchor="lm")
    return np.asarray(patch)


@lru_cache
def _font(size: int):
    # matplotlib brings a font with most alphabets; OpenCV's own has nothing beyond ASCII.
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)
