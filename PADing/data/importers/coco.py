"""COCO instances with RLE of both kinds, or with keys missing: ids, areas and boxes are made or checked."""

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pycocotools.mask as mask_util

from PADing.data.coco_schema import mask_problem
from PADing.data.images import max_pixels
from PADing.data.importers.items import IMPORTERS, Item, Object, Source
from PADing.data.importers.labelme import image_size
from PADing.data.importers.places import role_of
from PADing.errors import UserError
from PADing.files import read_json


@IMPORTERS.register("coco")
def coco(source: Source) -> Iterator[Item]:
    """An item for each entry of ``images`` in a JSON, or in all JSONs below a folder.

    A folder or the beginning of a file's name such as ``train`` or ``valid`` gives the role.
    """
    files = [source.path] if source.path.is_file() else list(source.place.files((".json",), source.path))
    if not files:
        raise UserError(f"There is no JSON in {source.path}. Name COCO's instance JSON, or a folder of such files.")
    for path in files:
        try:
            content = read_json(path, "COCO file")
        except (UserError, RecursionError):
            if source.path == path:
                raise
            source.report.leave_out("file that is not valid JSON in UTF-8", path)
            continue
        if not isinstance(content.get("images"), list) or not isinstance(content.get("annotations"), list):
            source.report.leave_out("JSON without the lists `images` and `annotations`", path)
            continue
        yield from _items(source, content, path)


def _items(source: Source, content: dict, path: Path) -> Iterator[Item]:
    names = {
        entry["id"]: entry["name"]
        for entry in _dicts(content.get("categories"))
        if _is_id(entry.get("id")) and isinstance(entry.get("name"), str)
    }
    by_image = defaultdict(list)
    for annotation in _dicts(content["annotations"]):
        if "segments_info" in annotation:
            source.report.leave_out("panoptic annotation (tools/make_split.py reads it as it is)", path)
        elif _is_id(annotation.get("image_id")):
            by_image[annotation["image_id"]].append(annotation)
        else:
            source.report.leave_out("annotation without the id of an image", path)
    met: set[Any] = set()
    by_name = path.stem.lower().replace("instances_", "").replace("-", "_").split("_")[0]
    role = role_of(f"{by_name}/x") or role_of(source.place.relative(path))
    for image in _dicts(content["images"]):
        number, name = image.get("id"), image.get("file_name")
        where = f"{path}, image {name if isinstance(name, str) else number!r}"
        if not isinstance(name, str) or not _is_id(number) or number in met:
            source.report.leave_out("image without a name, without an id, or with another one's id", where)
            continue
        met.add(number)
        item = Item(where, name, path.parent, image_size(image, "height", "width"), role=role)
        for annotation in by_image.pop(number, ()):
            _add(source, item, annotation, names)
        yield item
    for number, rest in by_image.items():
        source.report.leave_out("annotation of an image that is not listed", f"{path}, image {number}", len(rest))


def _add(source: Source, item: Item, annotation: dict, names: dict[Any, str]) -> None:
    where = f"{item.where}, annotation {annotation.get('id')!r}"
    number, shape = annotation.get("category_id"), annotation.get("segmentation")
    name = names.get(number) if _is_id(number) else None
    if name is None and _is_id(number):
        name = source.names.given.get(str(number)) or (None if names else f"class_{number}")
    if not name:
        source.report.leave_out("annotation of a category that is not listed", where)
        return
    crowd = annotation.get("iscrowd", 0)
    if crowd not in (0, 1):
        source.report.change("`iscrowd` that is neither 0 nor 1 is set to 0", where)
    thing = Object(name, crowd=crowd == 1)
    if isinstance(shape, dict):
        problem = _rle_problem(shape, item)
        if problem:
            source.report.leave_out(problem, where)
            return
        height, width = shape["size"]
        thing.rles.append(
            mask_util.frPyObjects(shape, height, width)
            if isinstance(shape["counts"], list)
            else {"size": [height, width], "counts": shape["counts"].encode()}
        )
    elif isinstance(shape, list) and shape:
        flat = [shape] if all(type(value) in (int, float) for value in shape) else shape
        usable = [part for part in flat if isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0]
        if len(usable) < len(flat):
            source.report.change("polygon with fewer than three points is dropped from its object", where)
        thing.polygons = usable
    else:
        reason = "annotation with a box only" if annotation.get("bbox") else "object without a mask"
        source.report.leave_out(reason, where)
        return
    item.objects.append(thing)


def _rle_problem(shape: dict, item: Item) -> str:
    size = shape.get("size")
    sides = image_size(dict(enumerate(size)), 0, 1) if isinstance(size, list) and len(size) == 2 else None
    if sides is None or math.prod(sides) > max_pixels():
        return "RLE without a size, or of too many pixels"
    if item.size is None:
        item.size = sides
    return "RLE of another size than its image, or with damaged counts" if mask_problem(shape, *item.size) else ""


def _dicts(value: Any) -> list[dict]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _is_id(value: Any) -> bool:
    return type(value) in (int, str)
