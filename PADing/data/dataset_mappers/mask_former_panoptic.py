"""``mask_former_panoptic``: panoptic segmentation with shortest-edge resizing instead of large-scale jittering."""

import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T
from panopticapi.utils import rgb2id

from PADing.data.dataset_mappers.base import (
    PAD_PIXEL,
    TrainingMapper,
    augment,
    crop_resize_flip_augmentations,
    image_tensor,
    make_instances,
    pad_to_multiple,
    read_record_image,
    read_segments,
)
from PADing.data.dataset_mappers.coco_panoptic_lsj import segment_masks

__all__ = ["MaskFormerPanopticDatasetMapper"]


class MaskFormerPanopticDatasetMapper(TrainingMapper):
    """Shortest-edge resize, crop, SSD color jitter, flip, padding to ``INPUT.SIZE_DIVISIBILITY``: as ``INPUT`` asks.

    One mask per segment that is not a crowd and still has a pixel; ``sem_seg`` (int64 (H, W)) is painted from all
    segments.
    """

    needs = ("file_name", "pan_seg_file_name", "segments_info")

    @configurable
    def __init__(self, is_train: bool = True, *, ignore_label: int, size_divisibility: int = -1, **kwargs):
        super().__init__(is_train, **kwargs)
        self.ignore_label = ignore_label
        self.size_divisibility = size_divisibility

    @classmethod
    def from_config(cls, cfg, is_train: bool = True) -> dict:
        ignore_label = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).ignore_label
        return {
            "is_train": is_train,
            "augmentations": crop_resize_flip_augmentations(cfg, ignore_label),
            "image_format": cfg.INPUT.FORMAT,
            "on_corrupt": cfg.INPUT.ON_CORRUPT,
            "ignore_label": ignore_label,
            "size_divisibility": cfg.INPUT.SIZE_DIVISIBILITY,
        }

    def map(self, dataset_dict: dict) -> dict:
        image = read_record_image(dataset_dict, self.image_format)
        size, listed = image.shape[:2], dataset_dict.pop("segments_info")
        panoptic, segments = read_segments(dataset_dict.pop("pan_seg_file_name"), size, listed)
        dataset_dict.pop("sem_seg_file_name", None)
        # The crop may look at the classes, so they are painted before.
        labels = paint_classes(rgb2id(panoptic), segments, self.ignore_label)
        augmented = T.AugInput(image, sem_seg=labels)
        transforms = augment(self.augmentations, augmented, dataset_dict["file_name"])
        image = pad_to_multiple(augmented.image, self.size_divisibility, PAD_PIXEL)
        labels = pad_to_multiple(augmented.sem_seg, self.size_divisibility, self.ignore_label)
        ids = pad_to_multiple(rgb2id(transforms.apply_segmentation(panoptic)), self.size_divisibility, 0)
        classes, masks = segment_masks(ids, segments)
        present = masks.any(axis=(1, 2))
        dataset_dict["image"] = image_tensor(image)
        dataset_dict["sem_seg"] = torch.from_numpy(labels.astype(np.int64))
        classes = [c for c, there in zip(classes, present, strict=True) if there]
        dataset_dict["instances"] = make_instances(classes, masks[present])
        return dataset_dict


def paint_classes(ids: np.ndarray, segments: list[dict], ignore_label: int) -> np.ndarray:
    """Class map (H, W) of a map of segment ids (H, W): contiguous ids, ``ignore_label`` where no segment lies.

    It is float64, so that it is resized as the published training did (see ``read_class_labels``).
    """
    labels = np.full(ids.shape, ignore_label, dtype=np.float64)
    for segment in segments:
        labels[ids == segment["id"]] = segment["category_id"]
    return labels
