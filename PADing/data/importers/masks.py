"""Turns objects into COCO annotations: checked, clipped to the image, upright, with area and box."""

import math

import numpy as np
import pycocotools.mask as mask_util
from PIL import Image

from PADing.data.importers.items import Object

# pycocotools allocates 5 points for each pixel of an outline: 20 million are a few hundred MB.
LONGEST_OUTLINE = 20_000_000
LARGEST_COORDINATE = 1e9
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Unusable(Exception):
    """Why an object is left out; the text is a reason for the report."""


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """A mask or label map (H, W), turned as EXIF ``orientation`` (1..8) turns its image."""
    if orientation == 1:
        return array
    dtype = array.dtype
    image = Image.fromarray(array.astype(np.uint8) if dtype.kind == "b" else array)
    return np.asarray(image.transpose(_TRANSPOSE[orientation])).astype(dtype)


def annotation_of(thing: Object, size: tuple[int, int], orientation: int = 1) -> tuple[dict, bool]:
    """``segmentation, area, bbox, iscrowd`` of an object, and whether a polygon was clipped.

    Args:
        thing: the object; its RLEs have ``size``.
        size: (height, width) of the image as stored if ``orientation`` is not 1, else upright.
        orientation: EXIF orientation that turns the annotation upright.

    Raises:
        Unusable: no mask is left.
    """
    upright = size[::-1] if orientation >= 5 else size
    polygons, clipped = [], False
    for polygon in thing.polygons:
        points = _turned_points(_points(polygon), size, orientation)
        inside = clip(points, *upright)
        clipped |= inside is not points
        if len(inside) < 3:
            continue
        if np.abs(np.diff(inside, axis=0, append=inside[:1])).max(axis=1).sum() + len(inside) > LONGEST_OUTLINE:
            raise Unusable(f"polygon with an outline of more than {LONGEST_OUTLINE:,} pixels")
        polygons.append(inside.ravel().tolist())
    rles = [_turned_rle(rle, orientation) for rle in thing.rles]
    if not polygons and not rles:
        raise Unusable("object outside the image" if clipped else "object without a mask")
    merged = mask_util.merge([*(mask_util.frPyObjects(polygons, *upright) if polygons else ()), *rles])
    area = int(mask_util.area(merged))
    if area == 0:
        raise Unusable("mask without a pixel")
    segmentation = polygons if not rles else {"size": list(upright), "counts": merged["counts"].decode("ascii")}
    box = [float(value) for value in mask_util.toBbox(merged)]
    return {"segmentation": segmentation, "area": area, "bbox": box, "iscrowd": int(thing.crowd)}, clipped


def clip(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """The part of a polygon (N, 2) within the image, by Sutherland and Hodgman; the same array if all of it is."""
    for axis, limit, sign in ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1)):
        within = sign * (points[:, axis] - limit) >= 0
        if within.all():
            continue
        kept: list[np.ndarray] = []
        for i in range(len(points)):
            previous, point = points[i - 1], points[i]
            if within[i] != within[i - 1]:
                crossing = previous + (point - previous) * ((limit - previous[axis]) / (point[axis] - previous[axis]))
                crossing[axis] = limit
                kept.append(crossing)
            if within[i]:
                kept.append(point)
        points = np.array(kept).reshape(-1, 2)
        if not len(points):
            break
    return points


def encode(mask: np.ndarray) -> dict:
    """The compressed RLE of a mask (H, W)."""
    return mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))


def box_polygon(left: float, top: float, right: float, bottom: float, degrees: float = 0) -> list[float]:
    """A box as a polygon, turned clockwise around its centre."""
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], dtype=float)
    return _turned_around((corners[0] + corners[2]) / 2, corners, degrees)


def ellipse_polygon(x: float, y: float, rx: float, ry: float, degrees: float = 0) -> list[float]:
    """An ellipse as a polygon that is within 0.1 pixels of it up to a radius of about 2,500."""
    radius = max(abs(rx), abs(ry))
    if not math.isfinite(radius):
        return [math.nan] * 6
    steps = 360 if radius > 2500 else max(16, math.ceil(math.pi / math.acos(1 - 0.1 / max(radius, 0.2))))
    angles = np.linspace(0, 2 * math.pi, steps, endpoint=False)
    points = np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)
    return _turned_around(np.array([x, y]), points, degrees)


def _turned_around(centre: np.ndarray, points: np.ndarray, degrees: float) -> list[float]:
    if degrees:
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        points = (points - centre) @ np.array([[c, s], [-s, c]]) + centre
    return points.ravel().tolist()


def _points(polygon: list) -> np.ndarray:
    try:
        values = np.array(polygon, dtype=float)
    except (TypeError, ValueError, OverflowError):
        raise Unusable("polygon with a coordinate that is not a number") from None
    if values.ndim != 1 or len(values) < 6 or len(values) % 2:
        raise Unusable("polygon with fewer than three points")
    if not np.isfinite(values).all():
        raise Unusable("polygon with a coordinate that is not a number")
    if np.abs(values).max() > LARGEST_COORDINATE:
        raise Unusable("polygon with a coordinate beyond 1,000,000,000")
    return values.reshape(-1, 2)


def _turned_points(points: np.ndarray, size: tuple[int, int], orientation: int) -> np.ndarray:
    if orientation == 1:
        return points
    (height, width), (x, y) = size, points.T
    pairs = {
        2: (width - x, y), 3: (width - x, height - y), 4: (x, height - y), 5: (y, x),
        6: (height - y, x), 7: (height - y, width - x), 8: (y, width - x),
    }  # fmt: skip
    return np.stack(pairs[orientation], axis=1)


def _turned_rle(rle: dict, orientation: int) -> dict:
    return rle if orientation == 1 else encode(turned(mask_util.decode(rle), orientation))
