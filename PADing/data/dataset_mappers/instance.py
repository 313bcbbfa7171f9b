"""Mappers of instance segmentation: COCO annotations become masks of the augmented image."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pycocotools.mask as mask_util
from detectron2.data.transforms import TransformList

from PADing.data.coco_schema import mask_problem
from PADing.data.dataset_mappers.base import (
    MAPPER_REGISTRY,
    TrainingMapper,
    large_scale_jitter,
    resize_and_crop,
)
from PADing.data.dataset_mappers.placement import Placement
from PADing.data.images import CorruptFile


class InstanceMapper(TrainingMapper):
    """One mask per instance; crowds and instances without a pixel in the crop are dropped."""

    needs = ("file_name", "annotations")

    def map(self, dataset_dict: dict) -> dict:
        """See the base class."""
        view = self.read_view(dataset_dict)
        annotations = dataset_dict.pop("annotations")
        _check_masks(annotations, view.source, dataset_dict["file_name"])
        image, transforms = view.augmented()
        classes, masks = annotation_masks(annotations, transforms, view.size, view.placement)
        return self.example(dataset_dict, image, classes, self.pad(masks, 0))


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
    annotations: list[dict], transforms: TransformList, size: tuple[int, int], placement: Placement | None = None
) -> tuple[list[int], np.ndarray]:
    """Contiguous classes and bool masks (n, H, W) of the annotations that still have a pixel; crowds are dropped.

    The points of polygons are transformed, then rasterised at the final size, which clips them. RLE masks are decoded
    and transformed as label maps.

    Args:
        annotations: ``annotations`` of ``load_data_set`` whose masks have been checked.
        transforms: what the augmentations did to the image.
        size: (H, W) of the augmented image.
        placement: the same as ``transforms``, in one step.
    """
    targets = [annotation for annotation in annotations if not annotation.get("iscrowd", 0)]
    outlines = _moved([a["segmentation"] for a in targets if isinstance(a["segmentation"], list)], transforms)
    masks = np.zeros((len(targets), *size), dtype=bool)
    classes: list[int] = []
    for annotation in targets:
        segmentation, mask = annotation["segmentation"], masks[len(classes)]
        if isinstance(segmentation, list):
            found = _rasterise(next(outlines), mask)
        else:
            whole = mask_util.decode(segmentation)
            mask[:] = transforms.apply_segmentation(whole) if placement is None else placement.labels(whole)
            found = bool(mask.any())
        if found:
            classes.append(annotation["category_id"])
    return classes, masks[: len(classes)]


def _moved(segmentations: list[list], transforms: TransformList) -> Iterator[list[np.ndarray]]:
    """The transformed points (n, 2), x and y, of the polygons of each mask."""
    polygons = [np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for mask in segmentations for polygon in mask]
    if not polygons:
        return iter(())
    points = transforms.apply_coords(np.concatenate(polygons))
    parts = iter(np.split(points, np.cumsum([len(polygon) for polygon in polygons[:-1]])))
    return (list(islice(parts, len(mask))) for mask in segmentations)


def _rasterise(polygons: list[np.ndarray], mask: np.ndarray) -> bool:
    """Paint polygons (n, 2) into a mask (H, W) of False, clipped; whether it has a pixel then."""
    height, width = mask.shape
    lows, highs = np.array([[p.min(axis=0), p.max(axis=0)] for p in polygons]).transpose(1, 0, 2)
    # Skip polygons that are wholly outside.
    inside = ((lows < (width, height)) & (highs > 0)).all(axis=1)
    if not inside.any():
        return False
    # pycocotools fills the whole size that it is told, column by column, and rounds to less than a pixel.
    left, top = np.maximum(np.floor(lows[inside].min(axis=0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(highs[inside].max(axis=0)).astype(int) + 1, (width, height))
    moved = [points.ravel().tolist() for points, kept in zip(polygons, inside, strict=True) if kept]
    shape = mask_util.merge(mask_util.frPyObjects(moved, bottom, right))
    if not mask_util.area(shape):
        return False
    mask.view(np.uint8)[top:bottom, left:right] = mask_util.decode(shape)[top:, left:]
    return True
