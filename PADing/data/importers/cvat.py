"""CVAT for images 1.1: one XML with all images, their polygons, boxes, ellipses and masks."""

import math
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from PADing.data.images import max_pixels
from PADing.data.importers.items import IMPORTERS, Item, Object, Source
from PADing.data.importers.labelme import placed
from PADing.data.importers.masks import Unusable, box_polygon, ellipse_polygon, encode
from PADing.data.importers.places import role_of
from PADing.data.importers.safe_xml import elements
from PADing.errors import UserError

_NO_AREA = ("polyline", "points", "tag", "skeleton", "cuboid")


@IMPORTERS.register("cvat")
def cvat(source: Source) -> Iterator[Item]:
    """An item for each ``<image>``; shapes with one label and one ``group_id`` are one object.

    ``<track>`` elements of video tasks are left out and reported.
    """
    files = [source.path] if source.path.is_file() else list(source.place.files((".xml",), source.path))
    if not files:
        raise UserError(f"There is no XML in {source.path}. Name the XML of the export `CVAT for images 1.1`.")
    for path in files:
        found = False
        for element in elements(path, frozenset({"image", "track"})):
            found = True
            if element.tag == "track":
                source.report.leave_out("track of a video (export the task as `CVAT for images 1.1`)", path)
                continue
            yield _item(source, element, path)
        if not found:
            source.report.leave_out("XML without an image", path)


def _item(source: Source, image: Element, path: Path) -> Item:
    name = image.get("name", "")
    item = Item(f"{path}, image {name or image.get('id')}", name, path.parent, _size(image))
    item.role = role_of(f"{image.get('subset', '')}/x") or role_of(name)
    groups: dict[tuple[str, str], Object] = {}
    for i, shape in enumerate(image):
        try:
            thing = _object(shape, item.size)
        except Unusable as reason:
            source.report.leave_out(str(reason), f"{item.where}, shape {i}")
            continue
        group = shape.get("group_id", "0")
        first = thing if group == "0" else groups.setdefault((thing.name, group), thing)
        if first is thing:
            item.objects.append(thing)
        else:
            first.polygons += thing.polygons
            first.rles += thing.rles
    return item


def _size(image: Element) -> tuple[int, int] | None:
    sides = [image.get(key, "") for key in ("height", "width")]
    if all(side.isascii() and side.isdigit() and len(side) < 10 and int(side) for side in sides):
        return int(sides[0]), int(sides[1])
    return None


def _object(shape: Element, size: tuple[int, int] | None) -> Object:
    if shape.tag in _NO_AREA or shape.tag not in ("polygon", "box", "ellipse", "mask"):
        raise Unusable(f"shape of kind {shape.tag if shape.tag in _NO_AREA else 'unknown'}")
    name = shape.get("label", "")
    if not name.strip():
        raise Unusable("object without a class")
    if shape.tag == "mask":
        return Object(name, rles=[_mask(shape, size)])
    if shape.tag == "polygon":
        values = shape.get("points", "").replace(";", ",").split(",")
        return Object(name, [_numbers(values)])
    keys = ("xtl", "ytl", "xbr", "ybr") if shape.tag == "box" else ("cx", "cy", "rx", "ry")
    a, b, c, d, rotation = _numbers([*(shape.get(key, "") for key in keys), shape.get("rotation", "0")])
    return Object(name, [(box_polygon if shape.tag == "box" else ellipse_polygon)(a, b, c, d, rotation)])


def _numbers(texts: list[str]) -> list[float]:
    try:
        values = [float(text) for text in texts]
    except ValueError:
        raise Unusable("polygon with a coordinate that is not a number") from None
    if not all(map(math.isfinite, values)):
        raise Unusable("polygon with a coordinate that is not a number")
    return values


def _mask(shape: Element, size: tuple[int, int] | None) -> dict:
    """CVAT's mask: lengths of runs of 0 and 1 in turn, row by row within a box."""
    if size is None or math.prod(size) > max_pixels():
        raise Unusable("mask in a file without the size of its image, or of too many pixels")
    try:
        left, top, width, height = (int(shape.get(key, "")) for key in ("left", "top", "width", "height"))
        runs = np.array([int(run) for run in shape.get("rle", "").split(",")], dtype=np.int64)
    except (ValueError, OverflowError):
        raise Unusable("mask whose runs are not whole numbers") from None
    if width < 1 or height < 1 or width * height > max_pixels() or max(abs(left), abs(top)) > 2**31:
        raise Unusable("mask of too many pixels")
    if (runs < 0).any() or (runs > width * height).any() or runs.sum() != width * height:
        raise Unusable("mask whose runs do not fill its box")
    part = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    return encode(placed(part, left, top, size))
