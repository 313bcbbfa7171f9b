"""Shared by the training mappers: reading with errors that name the file, augmentation, and the form of the output.

A mapper turns one dict of the data set into ``image`` (uint8 tensor (3, H, W) in ``INPUT.FORMAT``) and ``instances``
with ``gt_classes`` (int64 (n,)) and ``gt_masks`` (bool (n, H, W)). Detectron2's augmentations draw random numbers from
NumPy's global generator.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform
from detectron2.structures import Instances
from detectron2.utils.logger import log_first_n

from PADing.data.dataset_mappers.view import View, image_tensor
from PADing.data.images import CorruptFile, empty_segments, read_labels, read_panoptic_ids
from PADing.errors import UserError
from PADing.registry import NamedRegistry

logger = logging.getLogger(__name__)

# INPUT.DATASET_MAPPER_NAME -> a function or class that makes a training mapper from the config.
MAPPER_REGISTRY: NamedRegistry[Callable[[CfgNode], Callable[[dict], dict | None]]] = NamedRegistry("a mapper")
PAD_PIXEL = 128


class TrainingMapper:
    """Base of the training mappers: ``__call__`` handles corrupt files, subclasses write ``map``.

    Args:
        is_train: must be true; evaluation uses another mapper (see ``build_mapper``).
        augmentations: applied in order to image and labels.
        image_format: channel order of the image, "RGB" or "BGR".
        on_corrupt: "fatal" raises ``CorruptFile``; "skip" logs it and returns None, so the loader takes another image.
        size_divisibility: see ``pad``.
        reduced_decoding, resize_by: see ``INPUT.REDUCED_DECODING`` and ``RESIZE_BY``.
    """

    # Keys that a dict of the data set must have.
    needs: tuple[str, ...] = ("file_name",)
    # Function of the config that returns the arguments for augmentation; one of those below.
    augmentation: Callable[[CfgNode], dict[str, Any]]

    @configurable
    def __init__(
        self,
        is_train: bool = True,
        *,
        augmentations: Sequence[T.Augmentation],
        image_format: str = "RGB",
        on_corrupt: str = "fatal",
        size_divisibility: int = -1,
        reduced_decoding: bool = False,
        resize_by: str = "pillow",
    ):
        if not is_train:
            raise ValueError(f"{type(self).__name__} is for training; see build_mapper(cfg, is_train=False).")
        check_on_corrupt(on_corrupt)
        self.augmentations = T.AugmentationList(list(augmentations))
        self.image_format = image_format
        self.on_corrupt = on_corrupt
        self.size_divisibility = size_divisibility
        self.reduced_decoding, self.resize_by = reduced_decoding, resize_by
        logger.info("[%s] augmentations in training: %s", type(self).__name__, list(augmentations))

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """The constructor's arguments from a config."""
        common = {"is_train": is_train, "image_format": cfg.INPUT.FORMAT, "on_corrupt": cfg.INPUT.ON_CORRUPT}
        faster = {"reduced_decoding": cfg.INPUT.REDUCED_DECODING, "resize_by": cfg.INPUT.RESIZE_BY}
        return {**common, **faster, **cls.augmentation(cfg)}

    def __call__(self, dataset_dict: dict) -> dict | None:
        """A training example; None for a corrupt file that is skipped."""
        lacking = [key for key in self.needs if key not in dataset_dict]
        if lacking:
            raise UserError(
                f"{type(self).__name__} needs {lacking}, but the data set has only {sorted(dataset_dict)}. "
                "Choose an INPUT.DATASET_MAPPER_NAME for the kind of data set in DATASETS.TRAIN."
            )
        try:
            return self.map(dict(dataset_dict))
        except CorruptFile as error:
            if self.on_corrupt == "fatal":
                raise CorruptFile(f"{error} To train without such files, set INPUT.ON_CORRUPT skip.") from error
            logger.warning("Left out: %s", error)
            return None

    def read_view(self, dataset_dict: dict) -> View:
        """The image of ``dataset_dict``; CorruptFile as ``View``."""
        return View(dataset_dict, self.augmentations, self.image_format, self.reduced_decoding, self.resize_by)

    def map(self, dataset_dict: dict) -> dict:
        """Make a training example from a shallow copy of a data set's dict; do not change the copy's values."""
        raise NotImplementedError

    def pad(self, array: np.ndarray, value: int) -> np.ndarray:
        """Pad (..., H, W) at the right and bottom to multiples of ``size_divisibility`` if it is positive."""
        if self.size_divisibility <= 0:
            return array
        padding = [(0, -side % self.size_divisibility) for side in array.shape[-2:]]
        if not any(after for _, after in padding):
            return array
        return np.pad(array, [(0, 0)] * (array.ndim - 2) + padding, constant_values=value)

    def example(
        self, dataset_dict: dict, image: np.ndarray | torch.Tensor, classes: Sequence[int], masks: np.ndarray
    ) -> dict:
        """``dataset_dict`` with ``image``, and ``instances`` of bool masks (n, H', W'), which have been padded.

        ``image``: an array (H, W, 3) or a tensor (3, H, W), which is padded here.
        """
        if not isinstance(image, torch.Tensor):
            image = image_tensor(image)
        dataset_dict["image"] = torch.from_numpy(self.pad(image.numpy(), PAD_PIXEL))
        dataset_dict["instances"] = instances = Instances(tuple(masks.shape[1:]))
        instances.gt_classes = torch.as_tensor(list(classes), dtype=torch.int64)
        instances.gt_masks = torch.from_numpy(np.ascontiguousarray(masks))
        return dataset_dict


def check_on_corrupt(value: str) -> None:
    """UserError for a value of ``INPUT.ON_CORRUPT`` that is neither "fatal" nor "skip"."""
    if value not in ("fatal", "skip"):
        raise UserError(f"INPUT.ON_CORRUPT must be fatal or skip, but is {value!r}.")


def read_class_labels(path: str, size: tuple[int, int]) -> np.ndarray:
    """A map of class labels as stored (H, W); CorruptFile if it is unreadable or does not have ``size`` (H, W)."""
    labels = read_labels(path)
    _check_size("Label file", path, labels, size)
    return labels


def read_segments(path: str, size: tuple[int, int], segments: Sequence[dict]) -> tuple[np.ndarray, list[dict]]:
    """A panoptic map as ids (H, W) int32, and the segments that have a pixel; logs the first empty segment.

    Raises:
        CorruptFile: unreadable, not of ``size`` (H, W), or the map of another image (see ``empty_segments``).
    """
    ids = read_panoptic_ids(path)
    _check_size("Panoptic PNG", path, ids, size)
    empty = empty_segments(ids, segments, path)
    if empty:
        text = (
            f"Segments without a pixel are left out: {len(empty)} of {path}, e.g. id {min(empty)}. This message is "
            "shown once; `python -m PADing.data.verify --deep` counts them all."
        )
        log_first_n(logging.WARNING, text, name=__name__)
    return ids, [segment for segment in segments if segment["id"] not in empty]


def _check_size(what: str, path: str, labels: np.ndarray, size: tuple[int, int]) -> None:
    if labels.shape[:2] != size:
        have, want = (f"{height} x {width}" for height, width in (labels.shape[:2], size))
        raise CorruptFile(f"{what} {path} is {have} (height x width), but its image is {want}.")


def resize_and_crop(cfg: CfgNode, ignored_label: int | None = None) -> dict[str, Any]:
    """Arguments of the ``mask_former_*`` mappers: shortest-edge resize, crop, SSD color jitter, flip, and padding.

    ``ignored_label``: the label of pixels without a class, for mappers with a label map. Then crops with more than
    ``INPUT.CROP.SINGLE_CATEGORY_MAX_AREA`` of one class are drawn again.
    """
    node = cfg.INPUT
    augmentations: list = [T.ResizeShortestEdge(node.MIN_SIZE_TRAIN, node.MAX_SIZE_TRAIN, node.MIN_SIZE_TRAIN_SAMPLING)]
    if node.CROP.ENABLED and ignored_label is None:
        augmentations.append(T.RandomCrop(node.CROP.TYPE, node.CROP.SIZE))
    elif node.CROP.ENABLED:
        limit = node.CROP.SINGLE_CATEGORY_MAX_AREA
        augmentations.append(T.RandomCrop_CategoryAreaConstraint(node.CROP.TYPE, node.CROP.SIZE, limit, ignored_label))
    if node.COLOR_AUG_SSD:
        augmentations.append(ColorAugSSDTransform(img_format=node.FORMAT))
    return {"augmentations": augmentations + _flip(cfg), "size_divisibility": node.SIZE_DIVISIBILITY}


def resize_and_crop_labels(cfg: CfgNode) -> dict[str, Any]:
    """As ``resize_and_crop``, for mappers with a label map; also returns the argument ``ignore_label``."""
    ignored = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).ignore_label
    return {**resize_and_crop(cfg, ignored), "ignore_label": ignored}


def large_scale_jitter(cfg: CfgNode) -> dict[str, Any]:
    """Arguments of the ``coco_*_lsj`` mappers: flip, random resize, crop or padding to ``INPUT.IMAGE_SIZE`` squared.

    Label maps are padded with 0, which is void in panoptic maps and background in masks.
    """
    side = cfg.INPUT.IMAGE_SIZE
    resize = T.ResizeScale(cfg.INPUT.MIN_SCALE, cfg.INPUT.MAX_SCALE, target_height=side, target_width=side)
    crop = T.FixedSizeCrop(crop_size=(side, side), pad=True, pad_value=PAD_PIXEL, seg_pad_value=0)
    return {"augmentations": [*_flip(cfg), resize, crop]}


def _flip(cfg: CfgNode) -> list:
    """``INPUT.RANDOM_FLIP`` as augmentations: none, or one flip with probability 1/2."""
    kind = cfg.INPUT.RANDOM_FLIP
    return [] if kind == "none" else [T.RandomFlip(horizontal=kind == "horizontal", vertical=kind == "vertical")]
