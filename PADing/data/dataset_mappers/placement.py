"""Large-scale jittering in one step, without the pixels that the crop throws away.

Augmentations that need an image's size alone choose their transforms before any pixel is touched. Image, label maps and
masks then go to their places at once. The result is the same, bit by bit, as that of the transforms one after the
other: Pillow resizes rows first and columns second, and rounds in between, so columns outside the crop can be left out
there; and the nearest pixel is looked up for each row and column of the crop.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from PIL import Image
from torch.nn import functional

Size = tuple[int, int]
LEFT_RIGHT, TOP_BOTTOM = Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM
BILINEAR, NEAREST = Image.Resampling.BILINEAR, Image.Resampling.NEAREST


@dataclass(frozen=True)
class Placement:
    """Flips, then a resize, then a crop, then padding at the right and bottom. Sizes are (height, width).

    Attributes:
        source: size of the image.
        flips: of rows (top and bottom) and of columns (left and right).
        resized: size after resizing.
        start: row and column of the resized image where the crop begins.
        kept: size of the crop.
        output: size with padding.
        padding: value of padded pixels of the image.
    """

    source: Size
    flips: tuple[bool, bool]
    resized: Size
    start: Size
    kept: Size
    output: Size
    padding: int

    def image(self, picture: Image.Image, image_format: str = "RGB", resize_by: str = "pillow") -> torch.Tensor:
        """The pixels of an RGB image of Pillow: uint8 (3, H, W), in the order of ``image_format``.

        ``picture`` may be smaller than ``source``, as a JPEG is that was decoded at a part of its size. ``resize_by``:
        see ``INPUT.RESIZE_BY``.
        """
        for flipped, method in zip(self.flips, (TOP_BOTTOM, LEFT_RIGHT), strict=True):
            picture = picture.transpose(method) if flipped else picture
        rows, columns = self.kept
        pixels = torch.empty(3, *self.output, dtype=torch.uint8)
        pixels[:, rows:] = self.padding
        pixels[:, :rows, columns:] = self.padding
        bands = self._by_torch(picture) if resize_by == "torch" else self._by_pillow(picture)
        for band, place in zip(bands[::-1] if image_format == "BGR" else bands, pixels, strict=True):
            place[:rows, :columns] = band
        return pixels

    def _by_pillow(self, picture: Image.Image) -> list[torch.Tensor]:
        """The bands of the resized and cropped image."""
        (height, width), (top, left), (rows, columns) = self.resized, self.start, self.kept
        if columns < width and picture.size == self.source[::-1]:
            picture = picture.resize((width, picture.height), BILINEAR)
            picture = picture.crop((left, 0, left + columns, picture.height)).resize((columns, height), BILINEAR)
            left = 0
        else:
            picture = picture.resize((width, height), BILINEAR)
        if picture.size != (columns, rows):
            picture = picture.crop((left, top, left + columns, top + rows))
        return [torch.from_numpy(np.array(band)) for band in picture.split()]

    def _by_torch(self, picture: Image.Image) -> list[torch.Tensor]:
        """As ``_by_pillow``; the same passes with vector instructions, whose weights have fewer bits."""
        (height, width), (top, left), (rows, columns) = self.resized, self.start, self.kept
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
        for size, crop in (
            ((picture.height, width), (slice(None), slice(left, left + columns))),
            ((height, columns), (slice(top, top + rows), slice(None))),
        ):
            pixels = functional.interpolate(pixels, size, mode="bilinear", antialias=True)[(..., *crop)]
        return list(pixels[0])

    def labels(self, labels: np.ndarray, padding: int = 0) -> np.ndarray:
        """The nearest pixels of a map (h, w) of ``source`` size, as Pillow chooses them, and ``padding`` around."""
        nearest = [_nearest(*sides) for sides in zip(self.source, self.resized, self.flips, strict=True)]
        rows, columns = (
            which[start : start + length] for which, start, length in zip(nearest, self.start, self.kept, strict=True)
        )
        placed = np.full(self.output, padding, dtype=labels.dtype) if self.kept != self.output else None
        low, high = rows.min(), rows.max() + 1
        # Columns first, in the few rows of the image; then whole rows are copied.
        found = labels[low:high].take(columns, axis=1).take(rows - low, axis=0)
        if placed is None:
            return found
        placed[: len(rows), : len(columns)] = found
        return placed


def draw(augmentations: Iterable, size: Size) -> tuple[T.TransformList, Placement] | None:
    """What the augmentations choose for an image of ``size`` (H, W); None if they must see or change its pixels.

    Random numbers are drawn in the same order as by the augmentations themselves. None is drawn if the result is None.

    Raises:
        ValueError: a side would have 0 pixels after resizing.
    """
    *flips, last = [*augmentations] or [None]
    crop = last if type(last) is T.FixedSizeCrop else None
    resize: Any = last if crop is None else flips.pop() if flips else None
    known = type(resize) in (T.ResizeScale, T.ResizeShortestEdge) and resize.interp == BILINEAR
    if not known or any(type(flip) is not T.RandomFlip for flip in flips):
        return None
    steps = [flip.get_transform(blank(size)) for flip in flips]
    scaled = resize.get_transform(blank(size))
    resized = (scaled.new_h, scaled.new_w) if isinstance(scaled, T.ResizeTransform) else size
    if min(resized) < 1:
        raise ValueError("height and width must be > 0")
    steps += [scaled] if crop is None else [scaled, crop.get_transform(blank(resized))]
    return T.TransformList(steps), _placement(size, resized, list(_single(steps)), crop.pad_value if crop else 0)


def _placement(size: Size, resized: Size, steps: list[T.Transform], padding: float) -> Placement:
    flips = [sum(isinstance(step, kind) for step in steps) % 2 == 1 for kind in (T.VFlipTransform, T.HFlipTransform)]
    start, kept = (0, 0), resized
    for step in steps:
        if isinstance(step, T.CropTransform):
            start = step.y0, step.x0
            kept = min(step.h, resized[0] - step.y0), min(step.w, resized[1] - step.x0)
    pad = next((step for step in steps if isinstance(step, T.PadTransform)), None)
    output = kept if pad is None else (kept[0] + pad.y1, kept[1] + pad.x1)
    return Placement(size, (flips[0], flips[1]), resized, start, kept, output, int(padding))


def _single(steps: Iterable[T.Transform]) -> Iterator[T.Transform]:
    for step in steps:
        if isinstance(step, T.TransformList):
            yield from _single(step.transforms)
        else:
            yield step


def blank(size: Size) -> np.ndarray:
    """An image of a size, without memory."""
    return np.broadcast_to(np.zeros((), dtype=np.uint8), (*size, 3))


def _nearest(length: int, resized: int, flipped: bool) -> np.ndarray:
    """For each of ``resized`` pixels of a side, the one of ``length`` pixels that Pillow takes."""
    ramp = np.arange(length, dtype=np.int32)[None, :: -1 if flipped else 1]
    return np.asarray(Image.fromarray(np.ascontiguousarray(ramp)).resize((resized, 1), NEAREST))[0]
