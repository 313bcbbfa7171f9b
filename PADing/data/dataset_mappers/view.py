"""Reads the image of a record, and augments it, for the mappers."""

from functools import cached_property

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.data.detection_utils import SizeMismatchError, check_image_size

from PADing.data.dataset_mappers.placement import Placement, Size, blank, draw
from PADing.data.images import CorruptFile, read_image, read_picture, read_size
from PADing.errors import UserError


class View:
    """An image on its way into a training example.

    Random numbers are drawn by ``augmented``; with ``reduced`` already here.

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

    Raises:
        CorruptFile: the image is unreadable, has another size than its record says, or is too thin.
    """

    placement: Placement | None = None
    size: Size

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
        if reduced:
            height, width, orientation = read_size(self._path)
            self.source: Size = (height, width) if orientation < 5 else (width, height)
            check_record_size(record, blank(self.source))
            self._picture = read_picture(self._path, self._drawn[1].resized if self._drawn else None)
        else:
            self._picture = read_picture(self._path)
            self.source = self._picture.height, self._picture.width
            check_record_size(record, blank(self.source))

    @cached_property
    def _drawn(self) -> tuple[T.TransformList, Placement] | None:
        try:
            return draw(self._augmentations.augs, self.source)
        except ValueError as error:
            height, width = self.source
            if max(self.source) < 100 * min(self.source):
                raise UserError(
                    f"Image {self._path} of {height} x {width} pixels (height x width) would have a side of 0 pixels "
                    "after the random resize. Raise INPUT.MIN_SCALE or INPUT.IMAGE_SIZE."
                ) from error
            raise _too_thin(self._path, self.source) from error

    def augmented(self) -> tuple[torch.Tensor | np.ndarray, T.TransformList]:
        """The image, and what was done to it; call it once.

        The image is a uint8 tensor (3, H, W) if there is a ``placement``, else an array (H, W, 3).
        """
        if self._drawn is not None:
            transforms, self.placement = self._drawn
            self.size = self.placement.output
            return self.placement.image(self._picture, self._format, self._resize_by), transforms
        pixels = np.asarray(self._picture)
        pixels = pixels[:, :, ::-1] if self._format == "BGR" else pixels
        image, _, transforms = augment(self._augmentations, self._path, pixels)
        self.size = image.shape[:2]
        return image, transforms


def read_record_image(dataset_dict: dict, image_format: str) -> np.ndarray:
    """The image of ``dataset_dict``, uint8 (H, W, 3); CorruptFile if it is unreadable or has another size."""
    image = read_image(dataset_dict["file_name"], image_format)
    check_record_size(dataset_dict, image)
    return image


def check_record_size(dataset_dict: dict, image: np.ndarray) -> None:
    """CorruptFile if an image (H, W, 3) has another size than its record says; one that says none gets it."""
    try:
        check_image_size(dataset_dict, image)
    except SizeMismatchError as error:
        have, stated = image.shape[:2], [dataset_dict.get(key, "?") for key in ("height", "width")]
        raise CorruptFile(
            f"Image {dataset_dict['file_name']} is {have[0]} x {have[1]} (height x width), but {stated[0]} x "
            f"{stated[1]} in its annotation. Is it the right file? Does its EXIF orientation rotate it?"
        ) from error


def augment(augmentations: T.AugmentationList, path: str, image: np.ndarray, labels: np.ndarray | None = None) -> tuple:
    """The augmented image, the augmented labels (or None), and the transforms; CorruptFile if the image is too thin."""
    height, width = image.shape[:2]
    augmented = T.AugInput(image, sem_seg=labels)
    try:
        transforms = augmentations(augmented)
        return augmented.image, augmented.sem_seg, transforms
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        if max(height, width) < 100 * min(height, width):
            raise
        raise _too_thin(path, (height, width)) from error


def _too_thin(path: str, size: Size) -> CorruptFile:
    return CorruptFile(
        f"Image {path} of {size[0]} x {size[1]} pixels (height x width) is too thin: a side would be 0 pixels long "
        "after resizing."
    )


def image_tensor(image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) array to a uint8 tensor (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
