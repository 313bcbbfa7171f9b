"""COCO instance annotations -> masks on the augmented canvas."""

import numpy as np
import pycocotools.mask as mask_util

from PADing.data.dataset_mappers.base import CorruptFile

__all__ = ["annotation_masks"]


def annotation_masks(
    annotations: list[dict], transforms, size: tuple[int, int], file_name: str
) -> tuple[list[int], np.ndarray]:
    """Contiguous classes and bool masks (n, H, W) of the annotations that still have a pixel; crowds are dropped.

    Polygons are moved point by point and rasterised on the final canvas, which clips them; RLE masks are decoded, and
    transformed as label maps.

    Args:
        annotations: entries of ``load_instances``.
        transforms: what the augmentations did to the picture.
        size: (H, W) of the augmented picture.
        file_name: the picture, named when an annotation is broken.
    """
    height, width = size
    classes, masks = [], []
    for annotation in annotations:
        if annotation.get("iscrowd", 0):
            continue
        segmentation = annotation.get("segmentation")
        if segmentation is None:
            raise CorruptFile(f"Picture {file_name}: an annotation has a box but no mask.")
        try:
            if isinstance(segmentation, list):
                mask = _rasterise(segmentation, transforms, height, width)
            else:
                mask = transforms.apply_segmentation(mask_util.decode(segmentation))
        except (ValueError, TypeError, KeyError, AssertionError) as error:
            raise CorruptFile(f"Picture {file_name}: an annotation's mask is broken: {error}.") from error
        if mask is not None and mask.any():
            classes.append(annotation["category_id"])
            masks.append(mask.astype(bool, copy=False))
    return classes, np.stack(masks) if masks else np.zeros((0, height, width), dtype=bool)


def _rasterise(polygons: list, transforms, height: int, width: int) -> np.ndarray | None:
    moved = []
    for polygon in polygons:
        points = transforms.apply_coords(np.asarray(polygon, dtype=np.float64).reshape(-1, 2))
        if not np.isfinite(points).all():
            raise ValueError("a polygon has a coordinate that is not a number")
        low, high = points.min(axis=0), points.max(axis=0)
        # Polygons wholly outside of the canvas need no rasterising.
        if low[0] < width and low[1] < height and high[0] > 0 and high[1] > 0:
            moved.append(points.ravel().tolist())
    if not moved:
        return None
    return mask_util.decode(mask_util.merge(mask_util.frPyObjects(moved, height, width)))
