"""Mappers of panoptic segmentation: COCO's panoptic PNGs become one mask per segment."""

from typing import Any

import numpy as np
import torch
from detectron2.config import configurable
from panopticapi.utils import rgb2id

from PADing.data.dataset_mappers.base import (
    MAPPER_REGISTRY,
    TrainingMapper,
    augment,
    large_scale_jitter,
    read_record_image,
    read_segments,
    resize_and_crop_labels,
)


class PanopticMapper(TrainingMapper):
    """One mask per segment that is not a crowd, in the annotation's order."""

    needs = ("file_name", "pan_seg_file_name", "segments_info")

    def read(self, dataset_dict: dict) -> tuple[np.ndarray, np.ndarray, list[dict]]:
        """Image, panoptic map as RGB (H, W, 3), and segments; removes the annotation's fields from ``dataset_dict``."""
        image = read_record_image(dataset_dict, self.image_format)
        listed, path = dataset_dict.pop("segments_info"), dataset_dict.pop("pan_seg_file_name")
        dataset_dict.pop("sem_seg_file_name", None)
        return image, *read_segments(path, image.shape[:2], listed)


@MAPPER_REGISTRY.register("coco_panoptic_lsj")
class COCOPanopticNewBaselineDatasetMapper(PanopticMapper):
    """Segments with large-scale jittering.

    A segment outside the crop keeps an all-zero mask and remains a target, as in the published training.
    """

    augmentation = staticmethod(large_scale_jitter)

    def map(self, dataset_dict: dict) -> dict:
        """See the base class."""
        image, panoptic, segments = self.read(dataset_dict)
        image, _, transforms = augment(self.augmentations, dataset_dict["file_name"], image)
        # Transform the RGB image: nearest neighbour keeps colors and thus ids.
        ids = rgb2id(transforms.apply_segmentation(panoptic))
        return self.example(dataset_dict, image, *_segment_masks(ids, segments))


@MAPPER_REGISTRY.register("mask_former_panoptic")
class MaskFormerPanopticDatasetMapper(PanopticMapper):
    """Segments that still have a pixel, with shortest-edge resizing; ``sem_seg`` (int64 (H, W)) shows all of them.

    Args:
        ignore_label: of the pixels without a segment.
    """

    augmentation = staticmethod(resize_and_crop_labels)

    @configurable
    def __init__(self, is_train: bool = True, *, ignore_label: int, **kwargs: Any):
        super().__init__(is_train, **kwargs)
        self.ignore_label = ignore_label

    def map(self, dataset_dict: dict) -> dict:
        """See the base class."""
        image, panoptic, segments = self.read(dataset_dict)
        # Paint the classes before the crop, which may look at them.
        labels = _paint_classes(rgb2id(panoptic), segments, self.ignore_label)
        image, labels, transforms = augment(self.augmentations, dataset_dict["file_name"], image, labels)
        ids = self.pad(rgb2id(transforms.apply_segmentation(panoptic)), 0)
        classes, masks = _segment_masks(ids, segments)
        present = np.flatnonzero(masks.any(axis=(1, 2)))
        dataset_dict["sem_seg"] = torch.from_numpy(self.pad(labels, self.ignore_label).astype(np.int64))
        return self.example(dataset_dict, image, [classes[i] for i in present], masks[present])


def _segment_masks(ids: np.ndarray, segments: list[dict]) -> tuple[list[int], np.ndarray]:
    """Contiguous classes and bool masks (n, H, W) of all segments but crowds, from a map of ids (H, W)."""
    segments = [segment for segment in segments if not segment.get("iscrowd", 0)]
    masks = np.empty((len(segments), *ids.shape), dtype=bool)
    for mask, segment in zip(masks, segments, strict=True):
        np.equal(ids, segment["id"], out=mask)
    return [segment["category_id"] for segment in segments], masks


def _paint_classes(ids: np.ndarray, segments: list[dict], ignore_label: int) -> np.ndarray:
    """Class map, float64 (H, W), from a map of segment ids (H, W): contiguous ids, else ``ignore_label``.

    float64 makes resizing the same as in the published training (see ``read_class_labels``).
    """
    labels = np.full(ids.shape, ignore_label, dtype=np.float64)
    for segment in segments:
        labels[ids == segment["id"]] = segment["category_id"]
    return labels
