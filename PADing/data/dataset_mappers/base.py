"""What the training mappers share: reading with errors that name the file, and the form of their output.

A mapper turns one dict of the data set into ``image`` (uint8 tensor (3, H, W) in ``INPUT.FORMAT``) and ``instances``
with ``gt_classes`` (int64 (n,)) and ``gt_masks`` (bool (n, H, W)). Random choices are those of Detectron2's
augmentations, from NumPy's global generator.
"""

import logging
import os
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.data.detection_utils import SizeMismatchError, check_image_size, read_image
from detectron2.projects.point_rend import ColorAugSSDTransform
from detectron2.structures import Instances
from PIL import Image

from PADing.errors import UserError

__all__ = ["CorruptFile", "TrainingMapper", "flip_augmentation", "make_instances", "read_labels", "read_picture"]

logger = logging.getLogger(__name__)

PAD_PIXEL = 128
# What decoders raise on broken data; PIL's UnidentifiedImageError is an OSError, SyntaxError comes from PNG chunks.
DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


class CorruptFile(UserError):
    """A picture or an annotation that cannot be used; the message names the file and the reason."""


class TrainingMapper:
    """Base of the training mappers: ``__call__`` handles corrupt files, subclasses write ``map``.

    Args:
        is_train: must be true; evaluation uses Detectron2's mapper (see ``build_mapper``).
        augmentations: applied in order to picture and labels.
        image_format: channel order of the picture, "RGB" or "BGR".
        on_corrupt: "fatal" raises ``CorruptFile``; "skip" logs it and returns None, so the loader takes another image.
    """

    # Keys that a dict of the data set must have.
    needs: tuple[str, ...] = ("file_name",)

    def __init__(
        self, is_train: bool = True, *, augmentations: Sequence, image_format: str = "RGB", on_corrupt: str = "fatal"
    ):
        if not is_train:
            raise ValueError(f"{type(self).__name__} is for training; see build_mapper(cfg, is_train=False).")
        if on_corrupt not in ("fatal", "skip"):
            raise UserError(f"INPUT.ON_CORRUPT must be fatal or skip, but is {on_corrupt!r}.")
        self.augmentations = T.AugmentationList(list(augmentations))
        self.image_format = image_format
        self.on_corrupt = on_corrupt
        logger.info("[%s] augmentations in training: %s", type(self).__name__, list(augmentations))

    def __call__(self, dataset_dict: dict) -> dict | None:
        lacking = [key for key in self.needs if key not in dataset_dict]
        if lacking:
            raise UserError(
                f"{type(self).__name__} needs {lacking}, but the data set has only {sorted(dataset_dict)}. "
                "INPUT.DATASET_MAPPER_NAME must fit the kind of data set in DATASETS.TRAIN."
            )
        try:
            return self.map(dict(dataset_dict))
        except CorruptFile as error:
            if self.on_corrupt == "fatal":
                raise CorruptFile(f"{error} INPUT.ON_CORRUPT skip leaves such files out.") from error
            logger.warning("Left out: %s", error)
            return None

    def map(self, dataset_dict: dict) -> dict:
        """One dict of the data set (a copy, whose values are not to be changed) to one training example."""
        raise NotImplementedError


def read_picture(dataset_dict: dict, image_format: str) -> np.ndarray:
    """The picture of ``dataset_dict``, uint8 (H, W, 3); CorruptFile when it is unreadable or not of the stated size."""
    path = dataset_dict["file_name"]
    try:
        image = read_image(path, format=image_format)
        check_image_size(dataset_dict, image)
    except (*DECODER_ERRORS, SizeMismatchError) as error:
        raise CorruptFile(_reason("Picture", path, error)) from error
    return image


def read_labels(path: str, size: tuple[int, int], mode: str | None = None) -> np.ndarray:
    """A label PNG as stored, (H, W) or, with mode "RGB", (H, W, 3); CorruptFile when unreadable or not of ``size``."""
    try:
        labels = read_image(path, format=mode)
    except DECODER_ERRORS as error:
        raise CorruptFile(_reason("Label file", path, error)) from error
    if labels.shape[:2] != size:
        raise CorruptFile(f"Label file {path} is {labels.shape[:2]} (h, w), but its picture is {size}.")
    if mode is None and labels.ndim != 2:
        raise CorruptFile(f"Label file {path} has {labels.shape[2]} channels; class labels need a single one.")
    return labels


def _reason(what: str, path: str, error: Exception) -> str:
    if not os.path.exists(path):
        return f"{what} {path} does not exist."
    return f"{what} {path} cannot be used: {' '.join(str(error).split()).rstrip('.')}."


def flip_augmentation(cfg) -> list:
    """``INPUT.RANDOM_FLIP`` as augmentations: none, or one flip with probability 1/2."""
    kind = cfg.INPUT.RANDOM_FLIP
    return [] if kind == "none" else [T.RandomFlip(horizontal=kind == "horizontal", vertical=kind == "vertical")]


def crop_resize_flip_augmentations(cfg, ignored_label: int) -> list:
    """Shortest-edge resize, crop, SSD color jitter and flip, each as ``INPUT`` asks; for the ``mask_former_*`` mappers.

    With ``INPUT.CROP.SINGLE_CATEGORY_MAX_AREA`` below 1, crops that are nearly all one class are drawn again.
    """
    size, limit = cfg.INPUT.CROP.SIZE, cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA
    augmentations = [
        T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING)
    ]
    if cfg.INPUT.CROP.ENABLED:
        augmentations.append(T.RandomCrop_CategoryAreaConstraint(cfg.INPUT.CROP.TYPE, size, limit, ignored_label))
    if cfg.INPUT.COLOR_AUG_SSD:
        augmentations.append(ColorAugSSDTransform(img_format=cfg.INPUT.FORMAT))
    return augmentations + flip_augmentation(cfg)


def large_scale_jitter(cfg) -> list:
    """Flip, resize by a random factor, crop or pad to a square of ``INPUT.IMAGE_SIZE``; for the ``coco_*_lsj`` mappers.

    Label maps are padded with 0, which is void in panoptic maps and background in masks.
    """
    side = cfg.INPUT.IMAGE_SIZE
    return flip_augmentation(cfg) + [
        T.ResizeScale(cfg.INPUT.MIN_SCALE, cfg.INPUT.MAX_SCALE, target_height=side, target_width=side),
        T.FixedSizeCrop(crop_size=(side, side), pad=True, pad_value=PAD_PIXEL, seg_pad_value=0),
    ]


def pad_to_multiple(array: np.ndarray, divisor: int, value: int) -> np.ndarray:
    """Pad (H, W) or (H, W, 3) at the right and bottom to multiples of ``divisor``; nothing when it is not positive."""
    if divisor <= 0:
        return array
    height, width = array.shape[:2]
    padding = [(0, -height % divisor), (0, -width % divisor)] + [(0, 0)] * (array.ndim - 2)
    return np.pad(array, padding, constant_values=value) if any(p[1] for p in padding) else array


def image_tensor(image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) array to a uint8 tensor (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def make_instances(classes: Sequence[int], masks: np.ndarray) -> Instances:
    """Instances with ``gt_classes`` (int64 (n,)) and ``gt_masks`` (bool (n, H, W)) from a bool array (n, H, W)."""
    instances = Instances(tuple(masks.shape[1:]))
    instances.gt_classes = torch.as_tensor(list(classes), dtype=torch.int64)
    instances.gt_masks = torch.from_numpy(np.ascontiguousarray(masks))
    return instances
