"""LabelMe: a JSON for each image, with polygons, boxes, circles and masks."""

import base64
import binascii
import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from PADing.data.images import max_pixels
from PADing.data.importers.items import IMPORTERS, Item, Object, Source
from PADing.data.importers.masks import Unusable, box_polygon, ellipse_polygon, encode
from PADing.data.importers.places import role_of
from PADing.errors import UserError
from PADing.files import read_json


@IMPORTERS.register("labelme")
def labelme(source: Source) -> Iterator[Item]:
    """An item for each JSON below the folder; shapes with one label and one ``group_id`` are one object."""
    for path in source.place.files((".json",), source.path):
        try:
            content = read_json(path, "LabelMe file")
        except (UserError, RecursionError):
            source.report.leave_out("file that is not valid JSON in UTF-8", path)
            continue
        shapes = content.get("shapes")
        if not isinstance(shapes, list):
            source.report.leave_out("JSON that is not LabelMe's (it has no list `shapes`)", path)
            continue
        name, size = content.get("imagePath"), image_size(content, "imageHeight", "imageWidth")
        item = Item(str(path), name if isinstance(name, str) and name else path.stem, path.parent, size)
        item.role = role_of(source.place.relative(path))
        _add_objects(source, item, shapes)
        yield item


def _add_objects(source: Source, item: Item, shapes: list) -> None:
    groups: dict[tuple[str, str], Object] = {}
    for i, shape in enumerate(shapes):
        where = f"{item.where}, shape {i}"
        try:
            if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"].strip():
                raise Unusable("object without a class")
            thing = _object(shape, item.size)
        except Unusable as reason:
            source.report.leave_out(str(reason), where)
            continue
        group = shape.get("group_id")
        if group is None:
            item.objects.append(thing)
            continue
        first = groups.setdefault((thing.name, repr(group)), thing)
        if first is thing:
            item.objects.append(thing)
        else:
            first.polygons += thing.polygons
            first.rles += thing.rles


def _object(shape: dict[str, Any], size: tuple[int, int] | None) -> Object:
    kind, thing = shape.get("shape_type") or "polygon", Object(shape["label"])
    if kind not in ("polygon", "rectangle", "circle", "mask", "oriented_rectangle"):
        raise Unusable(f"shape of kind {kind if kind in ('point', 'points', 'line', 'linestrip') else 'unknown'}")
    points = _points(shape.get("points"))
    if kind == "mask":
        thing.rles.append(_mask(shape.get("mask"), points, size))
    elif kind == "rectangle" and len(points) == 2:
        thing.polygons.append(box_polygon(*points[0], *points[1]))
    elif kind == "circle" and len(points) == 2:
        radius = math.dist(points[0], points[1])
        thing.polygons.append(ellipse_polygon(points[0][0], points[0][1], radius, radius))
    else:
        thing.polygons.append([value for point in points for value in point])
    return thing


def _points(points: Any) -> list[list[float]]:
    if not isinstance(points, list):
        raise Unusable("object without points")
    for point in points:
        if not isinstance(point, list) or len(point) != 2 or not all(type(v) in (int, float) for v in point):
            raise Unusable("polygon with a coordinate that is not a number")
    return points


def _mask(text: Any, points: list[list[float]], size: tuple[int, int] | None) -> dict:
    """LabelMe's mask: a PNG in base64 for the pixels from the first point to the second, both included."""
    if size is None or math.prod(size) > max_pixels():
        raise Unusable("mask in a file without the size of its image, or of too many pixels")
    if len(points) != 2 or not all(math.isfinite(v) and abs(v) < 1e9 for point in points for v in point):
        raise Unusable("mask without its two corners")
    try:
        data = base64.b64decode(text, validate=True)
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if math.prod(image.size) > max_pixels():
                raise Unusable("mask of too many pixels")
            part = np.asarray(image.convert("L")) > 0
    except (TypeError, ValueError, binascii.Error, OSError, SyntaxError, Image.DecompressionBombError):
        raise Unusable("mask that is not a PNG in base64") from None
    (left, top), (right, bottom) = ([round(value) for value in point] for point in points)
    if part.shape != (bottom - top + 1, right - left + 1):
        raise Unusable("mask of another size than its corners say")
    return encode(placed(part, left, top, size))


def placed(part: np.ndarray, left: int, top: int, size: tuple[int, int]) -> np.ndarray:
    """A mask of ``size`` (height, width) with ``part`` at a place, cut off at the borders."""
    whole = np.zeros(size, dtype=bool)
    y0, x0 = max(top, 0), max(left, 0)
    inside = part[y0 - top : max(size[0] - top, 0), x0 - left : max(size[1] - left, 0)]
    whole[y0 : y0 + inside.shape[0], x0 : x0 + inside.shape[1]] = inside
    return whole


def image_size(content: dict, height: Any, width: Any) -> tuple[int, int] | None:
    """(height, width) from two keys; None unless both are numbers of pixels."""
    sides = [side for side in (content.get(height), content.get(width)) if type(side) is int and 0 < side < 2**31]
    return (sides[0], sides[1]) if len(sides) == 2 else None
