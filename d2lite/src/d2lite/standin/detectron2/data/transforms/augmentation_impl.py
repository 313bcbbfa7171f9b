"""The augmentations. Each docstring lists the random numbers drawn from NumPy's global generator.

Sizes and places are pairs (height, width) or (row, column). ``interp`` is one of Pillow's resampling methods.
"""

import sys
from dataclasses import dataclass, field

import numpy as np
from fvcore.transforms import transform as fvcore
from PIL.Image import Resampling

from .augmentation import Augmentation
from .transform import ResizeTransform

# Arguments of the dataclasses become attributes, by which an augmentation also describes itself.


def _nearest_whole(length: float) -> int:
    """Halves up, as in the sizes of published trainings."""
    return int(length + 0.5)


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

    def get_transform(self, image: np.ndarray) -> fvcore.Transform:
        """The flip, or nothing."""
        if not self._rand_range() < self.prob:
            return fvcore.NoOpTransform()
        height, width = image.shape[:2]
        return fvcore.VFlipTransform(height) if self.vertical else fvcore.HFlipTransform(width)


class Resize(Augmentation):
    """Resize to ``shape``, or to a square of that side. Draws nothing."""

    def __init__(self, shape: int | tuple[int, int], interp: int = Resampling.BILINEAR):
        self.shape = (shape, shape) if isinstance(shape, int) else tuple(shape)
        self.interp = interp

    def get_transform(self, image: np.ndarray) -> fvcore.Transform:
        """The resizing."""
        (height, width), (new_height, new_width) = image.shape[:2], self.shape
        return ResizeTransform(height, width, new_height, new_width, self.interp)


class ResizeShortestEdge(Augmentation):
    """Give the shorter side a random length, or a smaller one where the longer side would exceed ``max_size``.

    Draws one number. With ``sample_style`` "choice": ``choice`` among ``short_edge_length``; with "range": ``randint``
    from its first to its second number. A single number is used as it is; 0 keeps the image's size.
    """

    def __init__(
        self,
        short_edge_length: int | tuple[int, ...] | list[int],
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

    def get_transform(self, image: np.ndarray) -> fvcore.Transform:
        """The resizing, or nothing for the length 0."""
        lengths, (height, width) = self.short_edge_length, image.shape[:2]
        drawn = np.random.randint(lengths[0], lengths[1] + 1) if self.is_range else np.random.choice(lengths)
        if not drawn:
            return fvcore.NoOpTransform()
        new_height, new_width = self.get_output_shape(height, width, drawn, self.max_size)
        return ResizeTransform(height, width, new_height, new_width, self.interp)

    @staticmethod
    def get_output_shape(oldh: int, oldw: int, short_edge_length: int, max_size: int) -> tuple[int, int]:
        """The size that an image of (oldh, oldw) gets, when its shorter side becomes ``short_edge_length``."""
        short, long = sorted((oldh, oldw))
        new_short, new_long = float(short_edge_length), short_edge_length / short * long
        largest = max(new_short, new_long)
        if largest > max_size:
            shrink = max_size / largest
            new_short, new_long = new_short * shrink, new_long * shrink
        sides = _nearest_whole(new_short), _nearest_whole(new_long)
        return sides if oldh < oldw else sides[::-1]


@dataclass(repr=False, eq=False)
class ResizeScale(Augmentation):
    """Resize the image, with its aspect ratio, to fit into a target size times a uniform factor. Draws that factor."""

    min_scale: float
    max_scale: float
    target_height: int
    target_width: int
    interp: int = Resampling.BILINEAR

    def get_transform(self, image: np.ndarray) -> fvcore.Transform:
        """The resizing."""
        factor = np.random.uniform(self.min_scale, self.max_scale)
        height, width = image.shape[:2]
        fit = min(self.target_height * factor / height, self.target_width * factor / width)
        return ResizeTransform(height, width, round(height * fit), round(width * fit), self.interp)


@dataclass(repr=False, eq=False)
class FixedSizeCrop(Augmentation):
    """Crop to ``crop_size`` at one random relative offset for both axes, and pad smaller images at bottom and right.

    Draws one uniform number, even if nothing is cropped. ``pad`` False: do not pad.
    """

    crop_size: tuple[int, int]
    pad: bool = True
    pad_value: float = 128.0
    seg_pad_value: int = 255

    def get_transform(self, image: np.ndarray) -> fvcore.TransformList:
        """The crop, and the padding behind it."""
        offset = np.random.uniform(0.0, 1.0)
        (height, width), (crop_h, crop_w) = image.shape[:2], self.crop_size
        top, left = (round(max(excess, 0) * offset) for excess in (height - crop_h, width - crop_w))
        steps: list[fvcore.Transform] = [fvcore.CropTransform(left, top, crop_w, crop_h, width, height)]
        if self.pad:
            rest_h, rest_w = min(height, crop_h), min(width, crop_w)
            below, right = crop_h - rest_h, crop_w - rest_w
            steps.append(fvcore.PadTransform(0, 0, right, below, rest_w, rest_h, self.pad_value, self.seg_pad_value))
        return fvcore.TransformList(steps)


@dataclass(repr=False, eq=False)
class RandomCrop(Augmentation):
    """Cut out a rectangle at a random place. Draws its size, if that is random; then ``randint`` for row and column.

    ``crop_size`` is fractions of the image ("relative"), the least of two random ones by ``rand`` ("relative_range"),
    pixels ("absolute"), or the bounds of each random side, by one ``randint`` each ("absolute_range").
    """

    crop_type: str
    crop_size: tuple[float, float]

    def __post_init__(self):
        known = ("relative", "relative_range", "absolute", "absolute_range")
        assert self.crop_type in known, f"unknown crop_type {self.crop_type!r}; known: {', '.join(known)}"
        ordered = self.crop_type != "absolute_range" or self.crop_size[0] <= self.crop_size[1]
        assert ordered, f"the bounds {self.crop_size} of a crop are not in order"

    def get_crop_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """The size of a crop of an image of this size; may draw."""
        (height, width), (first, second) = image_size, self.crop_size
        match self.crop_type:
            case "absolute":
                return int(min(first, height)), int(min(second, width))
            case "absolute_range":
                low, high = int(first), int(second)
                rows = np.random.randint(min(height, low), min(height, high) + 1)
                return rows, np.random.randint(min(width, low), min(width, high) + 1)
            case "relative_range":
                lower = np.array([first, second], dtype=np.float32)
                first, second = lower + np.random.rand(2) * (1 - lower)
        return _nearest_whole(height * first), _nearest_whole(width * second)

    def get_transform(self, image: np.ndarray) -> fvcore.Transform:
        """The crop."""
        (height, width), (rows, columns) = image.shape[:2], self.get_crop_size(image.shape[:2])
        assert rows <= height and columns <= width, f"a crop of {rows, columns} does not fit into {height, width}"
        top, left = np.random.randint(height - rows + 1), np.random.randint(width - columns + 1)
        return fvcore.CropTransform(left, top, columns, rows)


@dataclass(repr=False, eq=False)
class RandomCrop_CategoryAreaConstraint(Augmentation):
    """``RandomCrop``, drawn up to ten times until no class covers too much of the labels inside.

    ``single_category_max_area`` is the largest share for one class, 1 permits all; ``ignored_category`` does not count.
    """

    crop_type: str
    crop_size: tuple[float, float]
    single_category_max_area: float = 1.0
    ignored_category: int | None = None

    def __post_init__(self):
        self.crop_aug = RandomCrop(self.crop_type, self.crop_size)

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray | None) -> fvcore.Transform:
        """The last crop drawn."""
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
