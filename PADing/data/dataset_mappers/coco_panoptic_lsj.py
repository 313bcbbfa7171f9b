"""``coco_panoptic_lsj``: panoptic segmentation with large-scale jittering."""

import numpy as np
from detectron2.config import configurable
from detectron2.data import transforms as T
from panopticapi.utils import rgb2id

from PADing.data.dataset_mappers.base import (
    TrainingMapper,
    augment,
    image_tensor,
    large_scale_jitter,
    make_instances,
    read_record_image,
    read_segments,
)

__all__ = ["COCOPanopticNewBaselineDatasetMapper", "segment_masks"]


class COCOPanopticNewBaselineDatasetMapper(TrainingMapper):
    """Flip, resize by 0.1 to 2.0 (``INPUT.MIN_SCALE``, ``MAX_SCALE``), crop or pad to ``INPUT.IMAGE_SIZE`` squared.

    One mask per segment that is not a crowd, in the annotation's order. A segment that the crop cut away keeps an
    all-zero mask and so still counts as a target, as in the published training.
    """

    needs = ("file_name", "pan_seg_file_name", "segments_info")

    @configurable
    def __init__(self, is_train: bool = True, **kwargs):
        super().__init__(is_train, **kwargs)

    @classmethod
    def from_config(cls, cfg, is_train: bool = True) -> dict:
        return {
            "is_train": is_train,
            "augmentations": large_scale_jitter(cfg),
            "image_format": cfg.INPUT.FORMAT,
            "on_corrupt": cfg.INPUT.ON_CORRUPT,
        }

    def map(self, dataset_dict: dict) -> dict:
        augmented = T.AugInput(read_record_image(dataset_dict, self.image_format))
        size, listed = augmented.image.shape[:2], dataset_dict.pop("segments_info")
        panoptic, segments = read_segments(dataset_dict.pop("pan_seg_file_name"), size, listed)
        transforms = augment(self.augmentations, augmented, dataset_dict["file_name"])
        # Transformed as an RGB image: nearest neighbour keeps colors, hence ids.
        ids = rgb2id(transforms.apply_segmentation(panoptic))
        dataset_dict["image"] = image_tensor(augmented.image)
        dataset_dict["instances"] = make_instances(*segment_masks(ids, segments))
        dataset_dict.pop("sem_seg_file_name", None)
        return dataset_dict


def segment_masks(ids: np.ndarray, segments: list[dict]) -> tuple[list[int], np.ndarray]:
    """Contiguous classes, and bool masks (n, H, W), of the segments that are no crowds, from a map of ids (H, W)."""
    segments = [segment for segment in segments if not segment.get("iscrowd", 0)]
    masks = np.empty((len(segments), *ids.shape), dtype=bool)
    for mask, segment in zip(masks, segments, strict=True):
        np.equal(ids, segment["id"], out=mask)
    return [segment["category_id"] for segment in segments], masks
