"""Mappers of instance segmentation: COCO annotations become masks of the augmented image."""

import numpy as np
import pycocotools.mask as mask_util
from detectron2.data.transforms import TransformList

from PADing.data.coco_schema import mask_problem
from PADing.data.dataset_mappers.base import (
    MAPPER_REGISTRY,
    TrainingMapper,
    augment,
    large_scale_jitter,
    read_record_image,
    resize_and_crop,
)
from PADing.data.images import CorruptFile


class InstanceMapper(TrainingMapper):
    """One mask per instance; crowds and instances without a pixel in the crop are dropped."""

    needs = ("file_name", "annotations")

    def map(self, dataset_dict: dict) -> dict:
        """See the base class."""
        image = read_record_image(dataset_dict, self.image_format)
        annotations, path = dataset_dict.pop("annotations"), dataset_dict["file_name"]
        _check_masks(annotations, image.shape[:2], path)
        image, _, transforms = augment(self.augmentations, path, image)
        classes, masks = annotation_masks(annotations, transforms, image.shape[:2])
        # Masks as (H, W, n), so that the same padding applies.
        masks = self.pad(masks.transpose(1, 2, 0), 0).transpose(2, 0, 1)
        return self.example(dataset_dict, image, classes, masks)


@MAPPER_REGISTRY.register("coco_instance_lsj")
class COCOInstanceNewBaselineDatasetMapper(InstanceMapper):
    """Instances with large-scale jittering."""

    augmentation = staticmethod(large_scale_jitter)


@MAPPER_REGISTRY.register("mask_former_instance")
class MaskFormerInstanceDatasetMapper(InstanceMapper):
    """Instances with shortest-edge resizing."""

    augmentation = staticmethod(resize_and_crop)


def _check_masks(annotations: list[dict], size: tuple[int, int], path: str) -> None:
    """CorruptFile unless every annotation, crowds excepted, has a mask that fits an image of ``size`` (H, W)."""
    for number, annotation in enumerate(annotations):
        if annotation.get("iscrowd", 0):
            continue
        segmentation = annotation.get("segmentation")
        problem = "it has a box but no mask" if segmentation is None else mask_problem(segmentation, *size)
        if problem is not None:
            raise CorruptFile(f"Image {path}, annotation {number + 1}: {problem}.")


def annotation_masks(
    annotations: list[dict], transforms: TransformList, size: tuple[int, int]
) -> tuple[list[int], np.ndarray]:
    """Contiguous classes and bool masks (n, H, W) of the annotations that still have a pixel; crowds are dropped.

    The points of polygons are transformed, then rasterised at the final size, which clips them. RLE masks are decoded
    and transformed as label maps.

    Args:
        annotations: ``annotations`` of ``load_data_set`` whose masks have been checked.
        transforms: what the augmentations did to the image.
        size: (H, W) of the augmented image.
    """
    height, width = size
    classes, masks = [], []
    for annotation in annotations:
        if annotation.get("iscrowd", 0):
            continue
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, list):
            mask = _rasterise(segmentation, transforms, height, width)
        else:
            mask = transforms.apply_segmentation(mask_util.decode(segmentation))
        if mask is not None and mask.any():
            classes.append(annotation["category_id"])
            masks.append(mask.astype(bool, copy=False))
    return classes, np.stack(masks) if masks else np.zeros((0, height, width), dtype=bool)


def _rasterise(polygons: list, transforms: TransformList, height: int, width: int) -> np.ndarray | None:
    moved = []
    for polygon in polygons:
        points = transforms.apply_coords(np.asarray(polygon, dtype=np.float64).reshape(-1, 2))
        low, high = points.min(axis=0), points.max(axis=0)
        # Skip polygons that are wholly outside.
        if low[0] < width and low[1] < height and high[0] > 0 and high[1] > 0:
            moved.append(points.ravel().tolist())
    if not moved:
        return None
    return mask_util.decode(mask_util.merge(mask_util.frPyObjects(moved, height, width)))
