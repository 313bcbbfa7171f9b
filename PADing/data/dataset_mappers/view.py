"""Reads the image of a record, and augments it, for the mappers."""

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.data.detection_utils import SizeMismatchError, check_image_size

from PADing.data.dataset_mappers.placement import Drawn, Placement, Size, blank, draw
from PADing.data.images import CorruptFile, read_picture, read_size
from PADing.errors import UserError


class View:
    """An image on its way into a training example.

    Args:
        record: dict of a data set; gets ``height`` and ``width`` if it lacks them.
        augmentations: applied in order.
        image_format: "RGB" or "BGR".
        reduced: decode a JPEG at a part of its size, if no more pixels than that remain after resizing.
        resize_by: see ``INPUT.RESIZE_BY``; for images with a ``placement``.

    Attributes:
        source: size of the image, (height, width).
        size: after ``augmented``, that of the augmented image.
        placement: after ``augmented``, what the augmentations do as one step; None if they cannot be one.
        labels: after ``augmented`` with a map of class labels, integers of the augmented image.

    Raises:
        CorruptFile: the image is unreadable, has another size than its record says, or is too thin.
    """

    placement: Placement | None = None
    size: Size
    labels: np.ndarray

    def __init__(
        self,
        record: dict,
        augmentations: T.AugmentationList,
        image_format: str,
        reduced: bool = False,
        resize_by: str = "pillow",
    ):
        self._path, self._augmentations, self._format = record["file_name"], augmentations, image_format
        self._resize_by = resize_by
        self._picture = None if reduced else read_picture(self._path)
        if self._picture is not None:
            self.source: Size = self._picture.height, self._picture.width
        else:  # decoded later, when the size after resizing is known
            height, width, orientation = read_size(self._path)
            self.source = (height, width) if orientation < 5 else (width, height)
        self._check_size(record)

    def augmented(self, labels: np.ndarray | None = None) -> tuple[torch.Tensor | np.ndarray, T.TransformList]:
        """The image, and what was done to it. Draws random numbers; call it once.

        The image is a uint8 tensor (3, H, W) if there is a ``placement``, else an array (H, W, 3). ``labels`` are
        integers (h, w) of ``source`` size, at which a random crop may look. PyTorch's nearest neighbour resizes them,
        as in the published training, whose labels were floats; Pillow's samples half a source pixel away.
        """
        drawn = self._draw(labels)
        if self._picture is None:
            self._picture = read_picture(self._path, None if drawn is None else drawn.placement.resized)
        if drawn is None:
            return self._one_by_one(labels)
        self.placement = placement = drawn.placement
        self.size = placement.output
        if labels is not None:
            self.labels = placement.labels(labels, placement.label_padding, by_torch=True)
        return placement.image(self._picture, self._format, self._resize_by, drawn.recolor), drawn.transforms

    def _draw(self, labels: np.ndarray | None) -> Drawn | None:
        try:
            return draw(self._augmentations.augs, self.source, labels)
        except ValueError as error:
            height, width = self.source
            if max(self.source) < 100 * min(self.source):
                raise UserError(
                    f"Image {self._path} of {height} x {width} pixels (height x width) would have a side of 0 pixels "
                    "after the random resize and crop. Raise INPUT.MIN_SCALE, INPUT.IMAGE_SIZE or INPUT.CROP.SIZE."
                ) from error
            raise self._too_thin() from error

    def _one_by_one(self, labels: np.ndarray | None) -> tuple[np.ndarray, T.TransformList]:
        pixels = np.asarray(self._picture)[:, :, :: -1 if self._format == "BGR" else 1]
        augmented = T.AugInput(pixels, sem_seg=None if labels is None else labels.astype(np.float64))
        try:
            transforms = self._augmentations(augmented)
        except (ValueError, RuntimeError, ZeroDivisionError) as error:
            if max(self.source) < 100 * min(self.source):
                raise
            raise self._too_thin() from error
        self.size = augmented.image.shape[:2]
        if augmented.sem_seg is not None:
            self.labels = augmented.sem_seg.astype(np.int64)
        return augmented.image, transforms

    def _check_size(self, record: dict) -> None:
        try:
            check_image_size(record, blank(self.source))
        except SizeMismatchError as error:
            stated = [record.get(key, "?") for key in ("height", "width")]
            raise CorruptFile(
                f"Image {self._path} is {self.source[0]} x {self.source[1]} (height x width), but {stated[0]} x "
                f"{stated[1]} in its annotation. Is it the right file? Does its EXIF orientation rotate it?"
            ) from error

    def _too_thin(self) -> CorruptFile:
        height, width = self.source
        return CorruptFile(
            f"Image {self._path} of {height} x {width} pixels (height x width) is too thin: a side would be 0 pixels "
            "long after resizing."
        )


def image_tensor(image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) array to a uint8 tensor (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
