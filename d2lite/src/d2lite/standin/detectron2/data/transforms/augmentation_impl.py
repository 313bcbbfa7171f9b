"""The augmentations. Each says what it draws from numpy's global generator, because equal draws give equal images.

Sizes and places are pairs (height, width) or (row, column). ``interp`` is one of Pillow's resampling methods.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from fvcore.transforms.transform import (
    CropTransform,
    HFlipTransform,
    NoOpTransform,
    PadTransform,
    Transform,
    TransformList,
    VFlipTransform,
)
from PIL.Image import Resampling

from .augmentation import Augmentation
from .transform import ResizeTransform

__all__ = [
    "FixedSizeCrop",
    "RandomCrop",
    "RandomCrop_CategoryAreaConstraint",
    "RandomFlip",
    "Resize",
    "ResizeScale",
    "ResizeShortestEdge",
]


def _nearest_whole(length: float) -> int:
    """Halves up, as in the sizes of published trainings."""
    return int(length + 0.5)


# Here and below arguments become attributes, by which an augmentation also describes itself.
@dataclass(repr=False, eq=False)
class RandomFlip(Augmentation):
    """Mirror left and right, or top and bottom, with probability ``prob``. Draws one uniform number."""

    prob: float = 0.5
    horizontal: bool = field(default=True, kw_only=True)
    vertical: bool = field(default=False, kw_only=True)

    def __post_init__(self):
        if self.horizontal == self.vertical:
            chosen = "both directions are" if self.vertical else "none is"
            raise ValueError(f"a RandomFlip has one direction, but {chosen} chosen; two of them can follow each other")

    def get_transform(self, image: np.ndarray) -> Transform:
        if not self._rand_range() < self.prob:
            return NoOpTransform()
        height, width = image.shape[:2]
        return VFlipTransform(height) if self.vertical else HFlipTransform(width)


@dataclass(repr=False, eq=False)
class Resize(Augmentation):
    """Resize to ``shape``, or to a square of that side. Draws nothing."""

    shape: int | tuple[int, int]
    interp: int = Resampling.BILINEAR

    def __post_init__(self):
        self.shape = (self.shape,) * 2 if isinstance(self.shape, int) else tuple(self.shape)

    def get_transform(self, image: np.ndarray) -> Transform:
        return ResizeTransform(*image.shape[:2], *self.shape, self.interp)


class ResizeShortestEdge(Augmentation):
    """Give the shorter side a random length, or a smaller one where the longer side would exceed ``max_size``.

    Draws one number. With ``sample_style`` "choice": ``choice`` among ``short_edge_length``; with "range": ``randint``
    from its first to its second number. A single number stands for itself, and 0 for the image as it is.
    """

    def __init__(
        self,
        short_edge_length: int | tuple[int, ...],
        max_size: int = sys.maxsize,
        sample_style: str = "range",
        interp: int = Resampling.BILINEAR,
    ):
        lengths = (short_edge_length,) * 2 if isinstance(short_edge_length, int) else short_edge_length
        assert sample_style in ("range", "choice"), f"unknown sample_style {sample_style!r}"
        assert sample_style == "choice" or len(lengths) == 2, f"{lengths} is no range: it takes two numbers"
        self.short_edge_length, self.max_size = lengths, max_size
        self.sample_style, self.interp = sample_style, interp
        self.is_range = sample_style == "range"

    def get_transform(self, image: np.ndarray) -> Transform:
        lengths = self.short_edge_length
        drawn = np.random.randint(lengths[0], lengths[1] + 1) if self.is_range else np.random.choice(lengths)
        if not drawn:
            return NoOpTransform()
        size = image.shape[:2]
        return ResizeTransform(*size, *self.get_output_shape(*size, drawn, self.max_size), self.interp)

    @staticmethod
    def get_output_shape(oldh: int, oldw: int, short_edge_length: int, max_size: int) -> tuple[int, int]:
        """The size that an image of (oldh, oldw) gets, when its shorter side becomes ``short_edge_length``."""
        short, long = sorted((oldh, oldw))
        sides = (float(short_edge_length), short_edge_length / short * long)
        if max(sides) > max_size:
            shrink = max_size / max(sides)
            sides = tuple(side * shrink for side in sides)
        new_short, new_long = map(_nearest_whole, sides)
        return (new_short, new_long) if oldh < oldw else (new_long, new_short)


@dataclass(repr=False, eq=False)
class ResizeScale(Augmentation):
    """Fit the image into a target size times a random factor, with its proportions kept. Draws one uniform number.

    Followed by ``FixedSizeCrop``, this is large-scale jitter.
    """

    min_scale: float
    max_scale: float
    target_height: int
    target_width: int
    interp: int = Resampling.BILINEAR

    def get_transform(self, image: np.ndarray) -> Transform:
        factor = np.random.uniform(self.min_scale, self.max_scale)
        height, width = image.shape[:2]
        fit = min(self.target_height * factor / height, self.target_width * factor / width)
        return ResizeTransform(height, width, round(height * fit), round(width * fit), self.interp)


@dataclass(repr=False, eq=False)
class FixedSizeCrop(Augmentation):
    """Cut what exceeds ``crop_size``, at one random relative offset for both axes; pad what is missing at the far ends.

    Draws one uniform number, also where nothing is to be cut. ``pad`` False leaves small images small.
    """

    crop_size: tuple[int, int]
    pad: bool = True
    pad_value: float = 128.0
    seg_pad_value: int = 255

    def get_transform(self, image: np.ndarray) -> TransformList:
        offset = np.random.uniform(0.0, 1.0)
        (height, width), (crop_h, crop_w) = image.shape[:2], self.crop_size
        top, left = (round(max(excess, 0) * offset) for excess in (height - crop_h, width - crop_w))
        steps: list[Transform] = [CropTransform(left, top, crop_w, crop_h, width, height)]
        if self.pad:
            rest_h, rest_w = min(height, crop_h), min(width, crop_w)
            below, right = crop_h - rest_h, crop_w - rest_w
            steps.append(PadTransform(0, 0, right, below, rest_w, rest_h, self.pad_value, self.seg_pad_value))
        return TransformList(steps)


def _drawn_fractions(size: tuple[int, int], smallest: tuple[float, float]) -> tuple[int, int]:
    lower = np.float32(smallest)
    return _fractions(size, lower + np.random.rand(2) * (1 - lower))


def _fractions(size: tuple[int, int], fractions: tuple[float, float]) -> tuple[int, int]:
    return tuple(_nearest_whole(side * fraction) for side, fraction in zip(size, fractions, strict=True))


def _drawn_pixels(size: tuple[int, int], bounds: tuple[int, int]) -> tuple[int, int]:
    return tuple(np.random.randint(min(side, bounds[0]), min(side, bounds[1]) + 1) for side in size)


def _pixels(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int]:
    return tuple(map(min, wanted, size))


# crop_type -> the crop's size, from the image's size and crop_size.
_CROP_SIZES: dict[str, Callable] = {
    "relative": _fractions,
    "relative_range": _drawn_fractions,
    "absolute": _pixels,
    "absolute_range": _drawn_pixels,
}


@dataclass(repr=False, eq=False)
class RandomCrop(Augmentation):
    """Cut out a rectangle at a random place. Draws its size, if that is random; then ``randint`` for row and column.

    ``crop_type`` says what ``crop_size`` is: fractions of the image ("relative"); the smallest fractions of a random
    size, two numbers by ``rand`` ("relative_range"); pixels, at most those of the image ("absolute"); the bounds in
    pixels of each random side, by one ``randint`` each ("absolute_range").
    """

    crop_type: str
    crop_size: tuple[float, float]

    def __post_init__(self):
        assert self.crop_type in _CROP_SIZES, f"unknown crop_type {self.crop_type!r}; known: {', '.join(_CROP_SIZES)}"
        ordered = self.crop_type != "absolute_range" or self.crop_size[0] <= self.crop_size[1]
        assert ordered, f"the bounds {self.crop_size} of a crop are not in order"

    def get_crop_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """The size of a crop of an image of this size; may draw."""
        return _CROP_SIZES[self.crop_type](image_size, self.crop_size)

    def get_transform(self, image: np.ndarray) -> Transform:
        size = image.shape[:2]
        crop = self.get_crop_size(size)
        assert crop[0] <= size[0] and crop[1] <= size[1], f"a crop of {crop} does not fit into an image of {size}"
        row, column = (np.random.randint(whole - part + 1) for whole, part in zip(size, crop, strict=True))
        return CropTransform(column, row, crop[1], crop[0])


@dataclass(repr=False, eq=False)
class RandomCrop_CategoryAreaConstraint(Augmentation):
    """``RandomCrop``, drawn up to ten times until no class covers too much of the labels inside.

    ``single_category_max_area`` is the largest share of the labelled pixels for one class, where 1 permits all;
    pixels with the label ``ignored_category`` do not count.
    """

    crop_type: str
    crop_size: tuple[float, float]
    single_category_max_area: float = 1.0
    ignored_category: int | None = None

    def __post_init__(self):
        self.crop_aug = RandomCrop(self.crop_type, self.crop_size)

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray | None) -> Transform:
        if self.single_category_max_area >= 1:
            return self.crop_aug.get_transform(image)
        for _attempt in range(10):
            crop = self.crop_aug.get_transform(sem_seg)
            if self._is_mixed(crop.apply_segmentation(sem_seg)):
                break
        return crop

    def _is_mixed(self, labels: np.ndarray) -> bool:
        counted = labels.ravel() if self.ignored_category is None else labels[labels != self.ignored_category]
        areas = np.unique(counted, return_counts=True)[1]
        return len(areas) > 1 and areas.max() < counted.size * self.single_category_max_area
