"""``mask_former_instance``: instance segmentation with shortest-edge resizing instead of large-scale jittering."""

from detectron2.config import configurable
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform

from PADing.data.dataset_mappers.base import (
    PAD_PIXEL,
    TrainingMapper,
    augment,
    flip_augmentation,
    image_tensor,
    make_instances,
    pad_to_multiple,
    read_record_image,
)
from PADing.data.dataset_mappers.polygons import annotation_masks, check_masks

__all__ = ["MaskFormerInstanceDatasetMapper"]


class MaskFormerInstanceDatasetMapper(TrainingMapper):
    """Shortest-edge resize, crop, SSD color jitter, flip, padding to ``INPUT.SIZE_DIVISIBILITY``: as ``INPUT`` asks.

    Crowds and instances without a pixel in the crop are dropped.
    """

    needs = ("file_name", "annotations")

    @configurable
    def __init__(self, is_train: bool = True, *, size_divisibility: int = -1, **kwargs):
        super().__init__(is_train, **kwargs)
        self.size_divisibility = size_divisibility

    @classmethod
    def from_config(cls, cfg, is_train: bool = True) -> dict:
        augmentations = [
            T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING)
        ]
        if cfg.INPUT.CROP.ENABLED:
            augmentations.append(T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
        if cfg.INPUT.COLOR_AUG_SSD:
            augmentations.append(ColorAugSSDTransform(img_format=cfg.INPUT.FORMAT))
        return {
            "is_train": is_train,
            "augmentations": augmentations + flip_augmentation(cfg),
            "image_format": cfg.INPUT.FORMAT,
            "on_corrupt": cfg.INPUT.ON_CORRUPT,
            "size_divisibility": cfg.INPUT.SIZE_DIVISIBILITY,
        }

    def map(self, dataset_dict: dict) -> dict:
        augmented = T.AugInput(read_record_image(dataset_dict, self.image_format))
        annotations, path = dataset_dict.pop("annotations"), dataset_dict["file_name"]
        check_masks(annotations, augmented.image.shape[:2], path)
        transforms = augment(self.augmentations, augmented, path)
        classes, masks = annotation_masks(annotations, transforms, augmented.image.shape[:2])
        image = pad_to_multiple(augmented.image, self.size_divisibility, PAD_PIXEL)
        # Masks as (H, W, n), so that the same padding applies.
        masks = pad_to_multiple(masks.transpose(1, 2, 0), self.size_divisibility, 0).transpose(2, 0, 1)
        dataset_dict["image"] = image_tensor(image)
        dataset_dict["instances"] = make_instances(classes, masks)
        return dataset_dict
