"""Checks that a JSON has COCO's structure; messages name the first bad entries.

Later code can index, sort and rasterise without further checks: types are right, ids are unique, numbers are finite,
and no polygon or size makes pycocotools fill the memory.
"""

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np

from PADing.data.images import max_pixels
from PADing.errors import UserError, short

SHOWN = 3
# A color has three bytes, and id 0 is void.
LARGEST_SEGMENT_ID = 256**3 - 1
LARGEST_NUMBER = 1e9


def check_instances(content: dict, where: str, complete: bool = True) -> None:
    """Check COCO instances: ``images``, ``annotations``, ``categories``; UserError names the first bad entries.

    Args:
        content: the content of the file.
        where: the file, for messages.
        complete: also require name and size of every image and the box of every annotation, which training needs.
    """
    _check_lists(content, where, ("images", "annotations", "categories"))
    check_categories(content["categories"], where)
    images = content["images"]
    needed = ("file_name", "height", "width") if complete else ()
    _refuse(where, "images", images, lambda image: _image_problem(image, needed), "id")
    sizes = {image["id"]: (image.get("height"), image.get("width")) for image in images}
    _refuse(where, "annotations", content["annotations"], lambda entry: _instance_problem(entry, sizes, complete), "id")


def check_panoptic(content: dict, where: str, complete: bool = True) -> None:
    """Check COCO panoptic annotation: ``annotations``, ``categories``, and ``images`` if present.

    With ``complete``, every image needs a name. See ``check_instances`` for arguments and errors.
    """
    _check_lists(content, where, ("annotations", "categories"), optional=("images",))
    check_categories(content["categories"], where)
    needed = ("file_name",) if complete else ()
    _refuse(where, "images", content.get("images", []), lambda image: _image_problem(image, needed), "id")
    _refuse(where, "annotations", content["annotations"], _panoptic_problem, "image_id")


def check_categories(categories: list, where: str) -> None:
    """Check a list of categories, each with ``id`` and ``name``; UserError as above."""
    _refuse(where, "categories", categories, _category_problem, "id")


def check_detections(detections: list, where: str) -> None:
    """Check detections in COCO's result format; UserError as above."""
    _refuse(where, "detections", detections, _detection_problem)


def usable(polygon: Sequence[float]) -> bool:
    """Whether a flat list x, y, ... has at least three points and an even length."""
    return len(polygon) >= 6 and len(polygon) % 2 == 0


def mask_problem(segmentation, height: int, width: int, all_usable: bool = True) -> str | None:
    """The problem of a ``segmentation`` (polygons, or compressed or uncompressed RLE); None if there is none.

    Polygons may extend beyond the image by its longer side. If they went farther, rasterising could take minutes or end
    the process.

    Args:
        segmentation: the value to check.
        height: of the image, in pixels.
        width: of the image, in pixels.
        all_usable: refuse polygons that are not ``usable``; set False if the caller leaves them out.
    """
    if type(segmentation) is list:
        side = max(height, width)
        for polygon in segmentation:
            if type(polygon) is not list and not isinstance(polygon, (tuple, np.ndarray)):
                return f"`segmentation` must be a list of polygons [[x, y, ...], ...], but holds {short(polygon)}"
            if len(polygon) and not _within(polygon, -side, 2 * side):
                return (
                    f"a polygon has a coordinate that is not a number, or is far outside its image of {height} x "
                    f"{width} pixels (height x width): {short(_strangest(polygon))}"
                )
        if all_usable and not (segmentation and all(map(usable, segmentation))):
            return "each polygon of a mask needs at least three points of two numbers"
        return None
    if type(segmentation) is not dict:
        wanted = "polygons [[x, y, ...], ...] or an RLE {size, counts}"
        return f"`segmentation` must be {wanted}, but is {short(segmentation)}"
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, (list, tuple)) or [(type(v), v) for v in size] != [(int, height), (int, width)]:
        return f"the mask has size {short(size)}, but its image is {height} x {width} (height x width)"
    pixels = _pixels(counts)
    if pixels is None:
        return f"the mask's `counts` are neither a list of whole numbers nor a compressed RLE: {short(counts)}"
    if pixels != height * width:
        return f"the mask's `counts` are for {pixels} pixels, but its size {height} x {width} has {height * width}"
    return None


def _pixels(counts) -> int | None:
    """The sum of an RLE's counts; None if they are not counts."""
    if isinstance(counts, list):
        valid = all(type(count) is int and count >= 0 for count in counts)
        return sum(counts) if valid else None
    if isinstance(counts, str):
        counts = counts.encode("utf-8", "replace")
    sums = rle_pixels([counts]) if isinstance(counts, bytes) else None
    return None if sums is None else int(sums[0])


def rle_pixels(strings: Sequence[bytes]) -> np.ndarray | None:
    """The sums of the counts of n compressed RLEs, int64 (n,); None if one of them is invalid.

    pycocotools writes a number as groups of 5 bits, lowest group first, each as a character from "0" on. Bit 32 marks
    that another group follows; the highest bit of the last group is the sign. From the fourth number on, each number
    is the difference to the number two places before.
    """
    if not all(strings):
        return None
    groups = np.frombuffer(b"".join(strings), dtype=np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(groups & 32 == 0)
    stops = np.cumsum([len(string) for string in strings])
    if groups.min() < 0 or groups.max() > 63 or (groups[stops - 1] & 32).any():
        return None
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(groups)) - np.repeat(starts, ends - starts + 1)
    if place.max() > 6:
        return None
    numbers = np.add.reduceat((groups & 31) << (5 * place), starts)
    numbers -= np.where(groups[ends] & 16, 1 << (5 * (place[ends] + 1)), 0)
    first = np.concatenate([[0], np.searchsorted(ends, stops)[:-1]])  # index of each string's first number
    lengths = np.diff(first, append=len(numbers))
    index = np.arange(len(numbers)) - np.repeat(first, lengths)
    for chain in (index % 2 == 1, (index % 2 == 0) & (index > 0)):
        # Neither chain contains a string's first number, so the sum at that place is that of the strings before.
        sums = np.where(chain, numbers, 0).cumsum()
        numbers = np.where(chain, sums - np.repeat(sums[first], lengths), numbers)
    return None if (numbers < 0).any() else np.add.reduceat(numbers, first)


def _check_lists(content: dict, where: str, needed: Iterable[str], optional: Iterable[str] = ()) -> None:
    for key in (*needed, *optional):
        if key not in content:
            if key in needed:
                raise UserError(f"{where} has no `{key}`, so it is not in COCO's format.")
        elif type(content[key]) is not list:
            raise UserError(f"{where}: `{key}` must be a list of entries, but is {short(content[key])}.")


def _refuse(where: str, part: str, entries: list, problem: Callable[[object], str | None], key: str = "") -> None:
    """UserError for the first entries with a problem, for equal ids ``key``, and for a mix of numbers and text."""
    bad = ((i, text) for i, entry in enumerate(entries) if (text := problem(entry)) is not None)
    first = list(itertools.islice(bad, SHOWN))
    if first:
        named = "; ".join(f"{part}[{i}]{_name(entries[i])}: {text}" for i, text in first)
        raise UserError(f"{where}: {named}.")
    ids = [entry[key] for entry in entries] if key else []
    if len(set(map(type, ids))) > 1:
        raise UserError(f"{where}: some `{key}` of `{part}` are numbers, others text; use one kind.")
    met: dict = {}
    for i, identity in enumerate(ids):
        if (other := met.setdefault(identity, i)) != i:
            raise UserError(f"{where}: {part}[{i}] and {part}[{other}] have the same `{key}`, {identity!r}.")


def _name(entry) -> str:
    for key in ("id", "image_id"):
        if type(entry) is dict and isinstance(entry.get(key), (int, str)):
            return f" ({key} {short(entry[key])})"
    return ""


def _is_id(value) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_side(value) -> bool:
    return type(value) is int and 0 < value < 2**31


def _is_image_id(value) -> bool:
    return _is_id(value) or type(value) is str and value != ""


def _is_file_name(value) -> bool:
    if type(value) is not str or not value or "\0" in value:
        return False
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _is_number(*values: Any) -> bool:
    return _within(values, -LARGEST_NUMBER, LARGEST_NUMBER)


def _within(values: Sequence | np.ndarray, low: float, high: float) -> bool:
    """Whether all are numbers in low..high; fast, because it is called for every polygon of a file."""
    try:
        total = sum(values)  # NaN if one of them is
        return total == total and low <= min(values) and max(values) <= high
    except (TypeError, OverflowError):
        return False


def _strangest(polygon: Sequence | np.ndarray):
    """The first entry that is not a number, else the one farthest from 0."""
    other = [value for value in polygon if type(value) not in (int, float) or value != value]
    return other[0] if other else max(polygon, key=abs)


# A field's name, a test of its value, and what the value must be, in words.
_Field = tuple[str, Callable[[Any], bool], str]
_ID: _Field = ("id", _is_id, "a whole number >= 0")
_IMAGE_ID: _Field = ("image_id", _is_image_id, "the id of an image")
_CATEGORY_ID: _Field = ("category_id", _is_id, "the id of a category")
# Optional fields of objects and segments.
_MAYBE: tuple[_Field, ...] = (
    ("iscrowd", lambda value: value in (0, 1), "0 or 1"),
    ("area", lambda value: _within([value], 0, LARGEST_NUMBER**2), "a number >= 0"),
    ("bbox", lambda v: type(v) is list and len(v) == 4 and _is_number(*v), "four numbers [x, y, width, height]"),
    ("bbox", lambda box: min(box[2:]) >= 0, "[x, y, width, height] with a width and height >= 0"),
)


def _category_problem(entry: Any) -> str | None:
    return _problem(entry, "`id` and `name`", (_ID, ("name", lambda value: type(value) is str and value != "", "text")))


def _image_problem(image: Any, needed: Collection[str]) -> str | None:
    fields = [("id", _is_image_id, "a whole number >= 0 or text"), *((key, lambda _: True, "") for key in needed)]
    problem = _problem(image, "`id` and `file_name`", fields, [("file_name", _is_file_name, "the name of a file")])
    if problem:
        return problem
    size = [image[key] for key in ("height", "width") if key in image]
    if not all(map(_is_side, size)):
        return f"`height` and `width` must be numbers of pixels >= 1, but are {short(size)}"
    if math.prod(size) > max_pixels():
        return (
            f"`height` x `width` = {short(math.prod(size))} pixels are more than the limit of {max_pixels():,} "
            "(environment variable PADING_MAX_IMAGE_PIXELS)"
        )
    return None


def _instance_problem(annotation: Any, sizes: dict, complete: bool) -> str | None:
    problem = _problem(annotation, "`image_id` and `category_id`", (_IMAGE_ID, _CATEGORY_ID, _ID), _MAYBE)
    if problem:
        return problem
    image_id, segmentation = annotation["image_id"], annotation.get("segmentation")
    if "bbox" not in annotation and (complete or segmentation is None):
        return "lacks the field 'bbox'"
    if segmentation is None or image_id not in sizes:
        return None  # the loaders refuse annotations of unlisted images
    height, width = sizes[image_id]
    if height is None or width is None:
        return f"has a mask, but image {short(image_id)} has no `height` and `width`"
    return mask_problem(segmentation, height, width, all_usable=False)


def _detection_problem(detection: Any) -> str | None:
    score: _Field = ("score", _is_number, "a number")
    problem = _problem(detection, "`image_id` and `category_id`", (_IMAGE_ID, _CATEGORY_ID, score), _MAYBE)
    if problem is None and isinstance(detection.get("segmentation"), dict):
        size = detection["segmentation"].get("size")
        if type(size) is not list or len(size) != 2 or not all(map(_is_side, size)):
            return f"the mask's `size` must be [height, width], but is {short(size)}"
    return problem


def _panoptic_problem(annotation: Any) -> str | None:
    png: _Field = ("file_name", _is_file_name, "the name of a PNG")
    segments: _Field = ("segments_info", lambda value: type(value) is list, "a list of segments")
    problem = _problem(annotation, "`image_id`, `file_name` and `segments_info`", (_IMAGE_ID, png, segments))
    if problem:
        return problem
    wanted = f"a whole number 1..{LARGEST_SEGMENT_ID}"
    number: _Field = ("id", lambda value: type(value) is int and 0 < value <= LARGEST_SEGMENT_ID, wanted)
    met: set[int] = set()
    for i, segment in enumerate(annotation["segments_info"]):
        problem = _problem(segment, "`id` and `category_id`", (number, _CATEGORY_ID), _MAYBE)
        if problem:
            return f"segments_info[{i}]: {problem}"
        if segment["id"] in met:
            return f"segments_info[{i}] has the id {segment['id']} of another segment"
        met.add(segment["id"])
    return None


def _problem(entry: Any, what: str, needed: Iterable[_Field], optional: Iterable[_Field] = ()) -> str | None:
    """The problem of an entry's fields; None if there is none. ``what`` names the needed fields for the message."""
    if type(entry) is not dict:
        return f"must be an object with {what}, but is {short(entry)}"
    for fields, is_needed in ((needed, True), (optional, False)):
        for key, is_right, wanted in fields:
            if key not in entry:
                if is_needed:
                    return f"lacks the field {key!r}"
            elif not is_right(entry[key]):
                return f"`{key}` must be {wanted}, but is {short(entry[key])}"
    return None
