"""The augmentations. Each states what it draws from numpy's global generator, because equal draws make equal images."""

import sys

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
from PIL import Image

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

_BILINEAR = Image.Resampling.BILINEAR


class RandomFlip(Augmentation):
    """Flip with a probability, in one direction. Draws one uniform number."""

    def __init__(self, prob: float = 0.5, *, horizontal: bool = True, vertical: bool = False):
        """
        Args:
            prob: probability of a flip.
            horizontal: mirror left and right.
            vertical: mirror top and bottom, instead.
        """
        if horizontal and vertical:
            raise ValueError("Cannot do both horizontal and vertical flips. Use two RandomFlip instead.")
        if not horizontal and not vertical:
            raise ValueError("At least one of horizontal or vertical must be True!")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        h, w = image.shape[:2]
        if self._rand_range() >= self.prob:
            return NoOpTransform()
        return HFlipTransform(w) if self.horizontal else VFlipTransform(h)


class Resize(Augmentation):
    """Resize to a fixed size. Draws nothing."""

    def __init__(self, shape: int | tuple[int, int], interp: int = _BILINEAR):
        """
        Args:
            shape: (height, width), or one number for both.
            interp: PIL's resampling method.
        """
        shape = (shape, shape) if isinstance(shape, int) else tuple(shape)
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        return ResizeTransform(*image.shape[:2], *self.shape, self.interp)


class ResizeShortestEdge(Augmentation):
    """Resize so that the shorter side gets a given length, unless the longer one would exceed its limit.

    Draws one number: ``choice`` among the lengths, or ``randint`` between two.
    """

    def __init__(
        self,
        short_edge_length: int | tuple[int, ...],
        max_size: int = sys.maxsize,
        sample_style: str = "range",
        interp: int = _BILINEAR,
    ):
        """
        Args:
            short_edge_length: with "range", (smallest, largest); with "choice", the candidates. One number means
                itself. The length 0 means: leave the image as it is.
            max_size: limit of the longer side.
            sample_style: "range" or "choice".
            interp: PIL's resampling method.
        """
        assert sample_style in ("range", "choice"), f"sample_style is 'range' or 'choice', not {sample_style!r}."
        is_range = sample_style == "range"
        if isinstance(short_edge_length, int):
            short_edge_length = (short_edge_length, short_edge_length)
        assert not is_range or len(short_edge_length) == 2, (
            f"With sample_style 'range', short_edge_length has two numbers, not {short_edge_length}."
        )
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        h, w = image.shape[:2]
        if self.is_range:
            size = np.random.randint(self.short_edge_length[0], self.short_edge_length[1] + 1)
        else:
            size = np.random.choice(self.short_edge_length)
        if size == 0:
            return NoOpTransform()
        return ResizeTransform(h, w, *self.get_output_shape(h, w, size, self.max_size), self.interp)

    @staticmethod
    def get_output_shape(oldh: int, oldw: int, short_edge_length: int, max_size: int) -> tuple[int, int]:
        """(height, width) after resizing an image of (oldh, oldw); halves are rounded up."""
        size = short_edge_length * 1.0
        scale = size / min(oldh, oldw)
        # The shorter side is taken as asked for and not as a product, which might be off by a rounding error.
        newh, neww = (size, scale * oldw) if oldh < oldw else (scale * oldh, size)
        if max(newh, neww) > max_size:
            scale = max_size * 1.0 / max(newh, neww)
            newh, neww = newh * scale, neww * scale
        return int(newh + 0.5), int(neww + 0.5)


class ResizeScale(Augmentation):
    """Resize to fit into a target size that is scaled by a random factor; the aspect ratio stays.

    Draws one uniform number. With :class:`FixedSizeCrop` behind it, this is large scale jitter.
    """

    def __init__(
        self, min_scale: float, max_scale: float, target_height: int, target_width: int, interp: int = _BILINEAR
    ):
        """
        Args:
            min_scale, max_scale: range of the factor.
            target_height, target_width: size that the image just fits into at factor 1.
            interp: PIL's resampling method.
        """
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        return self._get_resize(image, np.random.uniform(self.min_scale, self.max_scale))

    def _get_resize(self, image: np.ndarray, scale: float) -> Transform:
        size = image.shape[:2]
        target = np.multiply((self.target_height, self.target_width), scale)
        fit = np.minimum(target[0] / size[0], target[1] / size[1])
        # One pixel at least: a thin image at a small factor would otherwise vanish.
        new_h, new_w = np.maximum(np.round(np.multiply(size, fit)).astype(int), 1).tolist()
        return ResizeTransform(*size, new_h, new_w, self.interp)


class FixedSizeCrop(Augmentation):
    """Crop to a size where the image is larger, at a random place, and pad right and bottom where it is smaller.

    Always draws one uniform number, the relative offset on both axes.
    """

    def __init__(
        self, crop_size: tuple[int, int], pad: bool = True, pad_value: float = 128.0, seg_pad_value: int = 255
    ):
        """
        Args:
            crop_size: (height, width) of the result.
            pad: False leaves smaller images as they are.
            pad_value: fills the image.
            seg_pad_value: fills the segmentation.
        """
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> TransformList:
        transforms = [self._get_crop(image)]
        if self.pad:
            transforms.append(self._get_pad(image))
        return TransformList(transforms)

    def _get_crop(self, image: np.ndarray) -> Transform:
        h, w = image.shape[:2]
        room = np.maximum(np.subtract((h, w), self.crop_size), 0)
        y0, x0 = np.round(np.multiply(room, np.random.uniform(0.0, 1.0))).astype(int).tolist()
        return CropTransform(x0, y0, self.crop_size[1], self.crop_size[0], w, h)

    def _get_pad(self, image: np.ndarray) -> Transform:
        h, w = np.minimum(image.shape[:2], self.crop_size).tolist()
        return PadTransform(
            0, 0, self.crop_size[1] - w, self.crop_size[0] - h, w, h, self.pad_value, self.seg_pad_value
        )


class RandomCrop(Augmentation):
    """Crop at a random place. Draws what the type of size needs, then ``randint`` for the row and for the column."""

    def __init__(self, crop_type: str, crop_size: tuple[float, float]):
        """
        Args:
            crop_type: what ``crop_size`` means, in the order height, width:
                "relative": a fraction of the image's size;
                "relative_range": a fraction drawn uniformly from [crop_size, 1], by ``np.random.rand(2)``;
                "absolute": pixels, or the image's size where that is smaller;
                "absolute_range": (smallest, largest) number of pixels, drawn by ``randint`` for each side.
            crop_size: two numbers.
        """
        types = ("relative_range", "relative", "absolute", "absolute_range")
        assert crop_type in types, f"crop_type is one of {', '.join(types)}, not {crop_type!r}."
        assert crop_type != "absolute_range" or crop_size[0] <= crop_size[1], f"{crop_size} is not an ascending range."
        self.crop_type, self.crop_size = crop_type, crop_size

    def get_transform(self, image: np.ndarray) -> Transform:
        h, w = image.shape[:2]
        crop_h, crop_w = self.get_crop_size((h, w))
        assert h >= crop_h and w >= crop_w, f"The crop {(crop_h, crop_w)} is larger than the image {(h, w)}."
        y0 = np.random.randint(h - crop_h + 1)
        x0 = np.random.randint(w - crop_w + 1)
        return CropTransform(x0, y0, crop_w, crop_h)

    def get_crop_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the crop, in pixels, for an image of (height, width)."""
        h, w = image_size
        first, second = self.crop_size
        if self.crop_type == "relative":
            return int(h * first + 0.5), int(w * second + 0.5)
        if self.crop_type == "relative_range":
            smallest = np.asarray(self.crop_size, dtype=np.float32)
            fraction_h, fraction_w = smallest + np.random.rand(2) * (1 - smallest)
            return int(h * fraction_h + 0.5), int(w * fraction_w + 0.5)
        if self.crop_type == "absolute":
            return min(first, h), min(second, w)
        crop_h = np.random.randint(min(h, first), min(h, second) + 1)
        crop_w = np.random.randint(min(w, first), min(w, second) + 1)
        return crop_h, crop_w


class RandomCrop_CategoryAreaConstraint(Augmentation):
    """:class:`RandomCrop`, tried again until no single class of the segmentation fills the crop.

    At most ten tries; the last one is taken as it is.
    """

    def __init__(
        self,
        crop_type: str,
        crop_size: tuple[float, float],
        single_category_max_area: float = 1.0,
        ignored_category: int | None = None,
    ):
        """
        Args:
            crop_type, crop_size: as for :class:`RandomCrop`.
            single_category_max_area: largest share of the labelled area for one class; 1 or more means no constraint.
            ignored_category: label that does not count as a class.
        """
        self.crop_aug = RandomCrop(crop_type, crop_size)
        self._init(locals())

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray | None) -> Transform:
        if self.single_category_max_area >= 1.0:
            return self.crop_aug.get_transform(image)
        assert sem_seg is not None, "RandomCrop_CategoryAreaConstraint needs the input's sem_seg."
        for _ in range(10):
            crop = self.crop_aug.get_transform(sem_seg)
            labels, counts = np.unique(crop.apply_segmentation(sem_seg), return_counts=True)
            if self.ignored_category is not None:
                counts = counts[labels != self.ignored_category]
            if len(counts) > 1 and counts.max() < counts.sum() * self.single_category_max_area:
                break
        return crop
