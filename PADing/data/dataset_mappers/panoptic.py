"""Mappers of panoptic segmentation: COCO's panoptic PNGs become one mask per segment."""

from typing import Any

import numpy as np
import torch
from detectron2.config import configurable

from PADing.data.dataset_mappers.base import (
    MAPPER_REGISTRY,
    TrainingMapper,
    large_scale_jitter,
    read_segments,
    resize_and_crop_labels,
)
from PADing.data.dataset_mappers.segments import SegmentMap


class PanopticMapper(TrainingMapper):
    """One mask per segment that is not a crowd, in the annotation's order."""

    needs = ("file_name", "pan_seg_file_name", "segments_info")

    def read_segments(self, dataset_dict: dict, size: tuple[int, int]) -> SegmentMap:
        """The panoptic map of an image of ``size`` (H, W); removes the annotation's fields from ``dataset_dict``."""
        listed, path = dataset_dict.pop("segments_info"), dataset_dict.pop("pan_seg_file_name")
        dataset_dict.pop("sem_seg_file_name", None)
        return SegmentMap(*read_segments(path, size, listed))


@MAPPER_REGISTRY.register("coco_panoptic_lsj")
class COCOPanopticNewBaselineDatasetMapper(PanopticMapper):
    """Segments with large-scale jittering.

    A segment outside the crop keeps an all-zero mask and remains a target, as in the published training.
    """

    augmentation = staticmethod(large_scale_jitter)

    def map(self, dataset_dict: dict) -> dict:
        """See the base class."""
        view = self.read_view(dataset_dict)
        segments = self.read_segments(dataset_dict, view.source)
        image, transforms = view.augmented()
        return self.example(dataset_dict, image, *segments.masks(segments.moved(transforms, view.placement)))


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
        view = self.read_view(dataset_dict)
        segments = self.read_segments(dataset_dict, view.source)
        # Paint the classes before the crop, which may look at them.
        image, transforms = view.augmented(segments.classes(self.ignore_label))
        numbers = segments.moved(transforms, view.placement)
        classes, masks = segments.masks(self.pad(numbers, segments.number.get(0, 0)))
        present = np.flatnonzero(masks.any(axis=(1, 2)))
        dataset_dict["sem_seg"] = torch.from_numpy(self.pad(view.labels, self.ignore_label).astype(np.int64))
        return self.example(dataset_dict, image, [classes[i] for i in present], masks[present])
