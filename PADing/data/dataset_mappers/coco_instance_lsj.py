"""``coco_instance_lsj``: instance segmentation with large-scale jittering."""

from detectron2.config import configurable
from detectron2.data import transforms as T

from PADing.data.dataset_mappers.base import (
    TrainingMapper,
    augment,
    image_tensor,
    large_scale_jitter,
    make_instances,
    read_record_image,
)
from PADing.data.dataset_mappers.polygons import annotation_masks, check_masks

__all__ = ["COCOInstanceNewBaselineDatasetMapper"]


class COCOInstanceNewBaselineDatasetMapper(TrainingMapper):
    """Flip, resize by 0.1 to 2.0 (``INPUT.MIN_SCALE``, ``MAX_SCALE``), crop or pad to ``INPUT.IMAGE_SIZE`` squared.

    Crowds and instances without a pixel in the crop are dropped.
    """

    needs = ("file_name", "annotations")

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
        annotations, path = dataset_dict.pop("annotations"), dataset_dict["file_name"]
        check_masks(annotations, augmented.image.shape[:2], path)
        transforms = augment(self.augmentations, augmented, path)
        dataset_dict["image"] = image_tensor(augmented.image)
        dataset_dict["instances"] = make_instances(
            *annotation_masks(annotations, transforms, augmented.image.shape[:2])
        )
        return dataset_dict
