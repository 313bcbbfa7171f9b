"""A mapper's augmentations in one step, without the pixels that the crop throws away.

Augmentations that need an image's size or labels alone choose their transforms before any pixel is touched. Image,
label maps and masks then go to their places at once. The result is the same, bit by bit, as that of the transforms one
after the other: Pillow resizes rows first and columns second, and rounds in between, so columns outside the crop can be
left out there; and the nearest pixel is looked up for each row and column of the crop.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform
from PIL import Image
from torch.nn import functional

Size = tuple[int, int]
Recolor = Callable[[np.ndarray], np.ndarray]
LEFT_RIGHT, TOP_BOTTOM = Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM
BILINEAR, NEAREST = Image.Resampling.BILINEAR, Image.Resampling.NEAREST


@dataclass(frozen=True)
class Placement:
    """Flips, then a resize, a crop, flips again, and padding at the right and bottom. Sizes are (height, width).

    Attributes:
        source: size of the image.
        flips: of rows (top and bottom) and of columns (left and right).
        resized: size after resizing.
        start: row and column of the resized image where the crop begins.
        kept: size of the crop.
        output: size with padding.
        padding, label_padding: values of padded pixels of the image, and of a map of class labels.
        mirrored: flips of rows and of columns of the crop.
    """

    source: Size
    flips: tuple[bool, bool]
    resized: Size
    start: Size
    kept: Size
    output: Size
    padding: int = 0
    label_padding: int = 0
    mirrored: tuple[bool, bool] = (False, False)

    def image(
        self,
        picture: Image.Image,
        image_format: str = "RGB",
        resize_by: str = "pillow",
        recolor: Recolor | None = None,
    ) -> torch.Tensor:
        """The pixels of an RGB image of Pillow: uint8 (3, H, W), in the order of ``image_format``.

        Args:
            picture: may be smaller than ``source``, as a JPEG is that was decoded at a part of its size.
            image_format: "RGB" or "BGR".
            resize_by: see ``INPUT.RESIZE_BY``.
            recolor: changes the colors of the crop, uint8 (H, W, 3) in the order of ``image_format``.
        """
        for flipped, method in zip(self.flips, (TOP_BOTTOM, LEFT_RIGHT), strict=True):
            picture = picture.transpose(method) if flipped else picture
        rows, columns = self.kept
        pixels = torch.empty(3, *self.output, dtype=torch.uint8)
        pixels[:, rows:] = self.padding
        pixels[:, :rows, columns:] = self.padding
        bands = self._by_torch(picture) if resize_by == "torch" else self._by_pillow(picture)
        bands = bands[::-1] if image_format == "BGR" else bands
        if recolor is not None:
            bands = cv2.split(recolor(cv2.merge(bands)))
        steps = tuple(-1 if mirrored else 1 for mirrored in self.mirrored)
        for band, place in zip(bands, pixels.numpy(), strict=True):
            place[:rows, :columns] = band[:: steps[0], :: steps[1]]
        return pixels

    def _by_pillow(self, picture: Image.Image) -> Sequence[np.ndarray]:
        """The bands (H, W) of the resized and cropped image."""
        (height, width), (top, left), (rows, columns) = self.resized, self.start, self.kept
        if columns < width and picture.size == self.source[::-1]:
            picture = picture.resize((width, picture.height), BILINEAR)
            picture = picture.crop((left, 0, left + columns, picture.height)).resize((columns, height), BILINEAR)
            left = 0
        else:
            picture = picture.resize((width, height), BILINEAR)
        if picture.size != (columns, rows):
            picture = picture.crop((left, top, left + columns, top + rows))
        return [np.asarray(band) for band in picture.split()]

    def _by_torch(self, picture: Image.Image) -> Sequence[np.ndarray]:
        """As ``_by_pillow``; the same passes with vector instructions, whose weights have fewer bits."""
        (height, width), (top, left), (rows, columns) = self.resized, self.start, self.kept
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
        for size, crop in (
            ((picture.height, width), (slice(None), slice(left, left + columns))),
            ((height, columns), (slice(top, top + rows), slice(None))),
        ):
            pixels = functional.interpolate(pixels, size, mode="bilinear", antialias=True)[(..., *crop)]
        return list(pixels[0].numpy())

    def labels(self, labels: np.ndarray, padding: int = 0, by_torch: bool = False) -> np.ndarray:
        """The nearest pixels of a map (h, w) of ``source`` size, as Pillow or PyTorch chooses them, and padding."""
        rows, columns = (self._nearest(axis, by_torch) for axis in (0, 1))
        low, high = rows.min(), rows.max() + 1
        # Columns first, in the few rows of the image; then whole rows are copied.
        found = labels[low:high].take(columns, axis=1).take(rows - low, axis=0)
        if self.kept == self.output:
            return found
        placed = np.full(self.output, padding, dtype=np.result_type(labels.dtype, np.min_scalar_type(padding)))
        placed[: len(rows), : len(columns)] = found
        return placed

    def _nearest(self, axis: int, by_torch: bool) -> np.ndarray:
        """Which rows (axis 0) or columns (1) of the image are in the crop, in the order of the result."""
        length, start, kept = self.source[axis], self.start[axis], self.kept[axis]
        choose = _nearest_by_torch if by_torch else _nearest_by_pillow
        nearest = choose(length, self.resized[axis], self.resized[1 - axis])
        nearest = length - 1 - nearest if self.flips[axis] else nearest
        return nearest[start : start + kept][:: -1 if self.mirrored[axis] else 1]


class Drawn(NamedTuple):
    """What augmentations chose for an image.

    Attributes:
        transforms: one after the other.
        placement: those that move pixels, in one step.
        recolor: changes the colors of the crop; None: they stay.
    """

    transforms: T.TransformList
    placement: Placement
    recolor: Recolor | None


# Flips, a resize, then a crop with padding, or a crop, a change of colors and flips; a letter of _letter for each.
KNOWN = re.compile("f*r(p|c?s?f*)")


def draw(augmentations: Iterable[T.Augmentation], size: Size, labels: np.ndarray | None = None) -> Drawn | None:
    """What the augmentations choose for an image of ``size`` (H, W); None if they must see or change its pixels.

    Random numbers are drawn in the same order as by the augmentations themselves. None is drawn if the result is None.
    ``labels``: classes (H, W), for a crop that looks at them.

    Raises:
        ValueError: a side would have 0 pixels.
    """
    steps = [*augmentations]
    letters = "".join(map(_letter, steps))
    if not KNOWN.fullmatch(letters):
        return None
    transforms, recolor = [], None
    placement = Placement(size, flips=(False, False), resized=size, start=(0, 0), kept=size, output=size)
    for number, (step, letter) in enumerate(zip(steps, letters, strict=True)):
        if letter == "s":
            transform: Any = step.get_transform()
            recolor = transform.apply_image
        else:
            transform = step.get_transform(*_inputs(step, placement, labels))
            placement = _extended(placement, transform, resized="r" in letters[:number])
        if min(placement.output) < 1:
            raise ValueError("height and width must be > 0")
        transforms.append(transform)
    return Drawn(T.TransformList(transforms), placement, recolor)


def _letter(step: T.Augmentation) -> str:
    if type(step) is T.RandomFlip:
        return "f"
    if type(step) in (T.ResizeScale, T.ResizeShortestEdge) and getattr(step, "interp", None) == BILINEAR:
        return "r"
    if type(step) in (T.RandomCrop, T.RandomCrop_CategoryAreaConstraint):
        return "c"
    if type(step) is T.FixedSizeCrop:
        return "p"
    # A transform among augmentations is kept in an object that has nothing else.
    return "s" if [type(value) for value in vars(step).values()] == [ColorAugSSDTransform] else "?"


def _inputs(step: T.Augmentation, placement: Placement, labels: np.ndarray | None) -> tuple:
    """What an augmentation looks at."""
    image = blank(placement.output)
    if type(step) is not T.RandomCrop_CategoryAreaConstraint:
        return (image,)
    if labels is None or step.single_category_max_area >= 1:
        return image, None
    return image, placement.labels(labels, by_torch=True)


def _extended(placement: Placement, transform: T.Transform, resized: bool) -> Placement:
    """A placement, and then a transform; ``resized``: the resize lies before it."""
    if isinstance(transform, T.TransformList):
        for part in transform.transforms:
            placement = _extended(placement, part, resized)
        return placement
    if isinstance(transform, (T.VFlipTransform, T.HFlipTransform)):
        rows, columns = placement.mirrored if resized else placement.flips
        flips = (not rows, columns) if isinstance(transform, T.VFlipTransform) else (rows, not columns)
        return replace(placement, mirrored=flips) if resized else replace(placement, flips=flips)
    if isinstance(transform, T.ResizeTransform):
        size = transform.new_h, transform.new_w
        return replace(placement, resized=size, kept=size, output=size)
    height, width = placement.output
    if isinstance(transform, T.CropTransform):
        top, left = transform.y0, transform.x0
        size = min(transform.h, height - top), min(transform.w, width - left)
        return replace(placement, start=(top, left), kept=size, output=size)
    if isinstance(transform, T.PadTransform):
        padding, size = int(transform.pad_value), (height + transform.y1, width + transform.x1)
        return replace(placement, output=size, padding=padding, label_padding=int(transform.seg_pad_value))
    return placement


def blank(size: Size) -> np.ndarray:
    """An image of a size, without memory."""
    return np.broadcast_to(np.zeros((), dtype=np.uint8), (*size, 3))


def _nearest_by_pillow(length: int, resized: int, beside: int) -> np.ndarray:
    """For each of ``resized`` pixels of a side, which of its ``length`` pixels is the nearest."""
    ramp = Image.fromarray(np.arange(length, dtype=np.int32)[None])
    return np.asarray(ramp.resize((resized, 1), NEAREST))[0]


def _nearest_by_torch(length: int, resized: int, beside: int) -> np.ndarray:
    """As ``_nearest_by_pillow``; ``beside`` is the length of the other side after resizing.

    Where both sides together have at most 128 pixels, PyTorch rounds positions in another way.
    """
    ramp = torch.arange(length, dtype=torch.float64)[None, None, None]
    return functional.interpolate(ramp, (min(beside, 128), resized), mode="nearest")[0, 0, 0].int().numpy()
