"""Detections of an image in little memory; reads and writes them in COCO's result format.

A detection with a mask takes about 250 bytes in these arrays, but more than a kilobyte as Python objects. COCO's
val2014 has four million.
"""

import json
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pycocotools.mask as mask_util

from PADing.data.coco_schema import LARGEST_NUMBER, check_detections, mask_problem, rle_pixels
from PADing.errors import UserError
from PADing.files import json_text

ImageId = int | str
# Height and width of an image; None if unknown.
Size = tuple[int | None, int | None]
# Number of entries to check at a time.
PART = 2_000
NO_BOX = (math.nan,) * 4


@dataclass(frozen=True)
class ImageDetections:
    """The detections of one image.

    Attributes:
        image_id: id in the annotation.
        category_ids: (n,) int64, ids in the annotation.
        scores: (n,) float64.
        boxes: (n, 4) float64 XYWH in pixels, a row of NaN for a detection without a box; or None.
        masks: n compressed RLE strings, None for a detection without a mask; or None.
        size: (H, W) of the masks.
    """

    image_id: ImageId
    category_ids: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray | None = None
    masks: Sequence[bytes | None] | None = None
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def rle(self, index: int) -> dict | None:
        """The mask of a detection as an RLE dict for pycocotools; None without a mask."""
        counts = self.masks[index] if self.masks and self.size else None
        return None if counts is None else {"size": list(self.size or ()), "counts": counts}

    def lines(self) -> Iterator[bytes]:
        """One JSON text a detection, in COCO's result format: ``json_text`` of each of :meth:`results`, but faster."""
        boxes = self.boxes
        finite = boxes is None or np.isfinite(boxes[~np.isnan(boxes[:, 0])]).all()
        if not finite or not np.isfinite(self.scores).all():
            yield from map(json_text, self.results())
            return
        start = f'{{"image_id": {json.dumps(self.image_id, ensure_ascii=False)}, "category_id": '
        shape = f', "segmentation": {{"size": {json.dumps(self.size)}, "counts": "'
        rows = [None] * len(self) if boxes is None else boxes.tolist()
        masks = self.masks if self.masks and self.size else [None] * len(self)
        for category, score, box, mask in zip(
            self.category_ids.tolist(), self.scores.tolist(), rows, masks, strict=True
        ):
            line = f'{start}{category}, "score": {score!r}'
            if box is not None and box[0] == box[0]:
                line += f', "bbox": {box}'
            if mask is not None:
                # The only character of an RLE string that JSON escapes.
                line += shape + mask.decode("ascii").replace("\\", "\\\\") + '"}'
            yield (line + "}").encode("utf-8", "backslashreplace")

    def results(self) -> Iterator[dict]:
        """One dict a detection, in COCO's result format."""
        for i, (category, score) in enumerate(zip(self.category_ids.tolist(), self.scores.tolist(), strict=True)):
            result = {"image_id": self.image_id, "category_id": category, "score": score}
            if self.boxes is not None and not math.isnan(self.boxes[i, 0]):
                result["bbox"] = self.boxes[i].tolist()
            if (rle := self.rle(i)) is not None:
                result["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode("ascii")}
            yield result


def by_image(results: Iterable[dict], sizes: Mapping[ImageId, Size], where: str) -> list[ImageDetections]:
    """Group detections in COCO's result format by image.

    Args:
        results: dicts ``image_id, category_id, score`` and ``bbox`` or ``segmentation`` (RLE or polygons).
        sizes: image id -> (H, W), for all images of the annotation; None for an unknown size.
        where: the source of the results, for messages.

    Raises:
        UserError: names the first wrong entry and its problem.
    """
    number: dict[ImageId, int] = {}
    images, columns = array("q"), []
    masks: list[tuple[tuple[int, int], bytes] | None] = []
    results, start = iter(results), 0
    while part := list(islice(results, PART)):
        if not _surely_right(part, sizes):
            _check(part, start, sizes, where)
        for entry in part:
            images.append(number.setdefault(entry["image_id"], len(number)))
            mask, size = entry.get("segmentation"), sizes[entry["image_id"]]
            rle = as_rle(mask, _size(mask, size)) if mask else None
            masks.append((tuple(rle["size"]), rle["counts"]) if rle else None)
        categories = np.array([entry["category_id"] for entry in part], dtype=np.int64)
        scores = np.array([entry["score"] for entry in part], dtype=np.float64)
        columns.append((categories, scores, np.array([entry.get("bbox", NO_BOX) for entry in part], dtype=np.float64)))
        start += len(part)
    if not start:
        return []
    categories, scores, boxes = map(np.concatenate, zip(*columns, strict=True))
    order = np.argsort(images, kind="stable")
    edges = np.searchsorted(np.asarray(images)[order], range(1, len(number)))
    detections = []
    for image_id, own in zip(number, np.split(order, edges), strict=True):
        own_masks = [masks[i] for i in own]
        own_sizes = {mask[0] for mask in own_masks if mask}
        if len(own_sizes) > 1:
            raise UserError(f"{where}: the masks of image {image_id} have different sizes: {sorted(own_sizes)[:3]}.")
        strings = [mask and mask[1] for mask in own_masks] if own_sizes else None
        detections.append(ImageDetections(image_id, categories[own], scores[own], boxes[own], strings, *own_sizes))
    return detections


def _surely_right(part: list[dict], sizes: Mapping[ImageId, Size]) -> bool:
    """Whether all entries have the usual form and are right; if not, the slower :func:`_check` finds the mistake."""
    try:
        ids = {(entry["image_id"], entry["category_id"]) for entry in part}
        scores = np.array([entry["score"] for entry in part])
        boxes = np.array([entry["bbox"] for entry in part if "bbox" in entry] or np.zeros((0, 4)))
        masked = [entry for entry in part if entry.get("segmentation") is not None]
        masks = [entry["segmentation"] for entry in masked]
        wanted = [sizes[entry["image_id"]] for entry in masked]
        if (
            {type(entry) for entry in part} != {dict}
            or {"area", "iscrowd"} & set().union(*part)
            or not {(type(entry["image_id"]), type(entry["category_id"])) for entry in part} <= {(int, int), (str, int)}
            or not all(image in sizes and 0 <= category < 2**63 for image, category in ids)
            or {type(entry.get("bbox", [])) for entry in part} != {list}
            or boxes.shape[1:] != (4,)
            or not all(values.dtype.kind in "if" for values in (scores, boxes))
            or not all((np.abs(values) <= LARGEST_NUMBER).all() for values in (scores, boxes))
            or (boxes[:, 2:] < 0).any()
            or not {(type(mask), type(mask["size"]), *map(type, mask["size"])) for mask in masks}
            <= {(dict, list, int, int)}
            or [tuple(mask["size"]) for mask in masks] != wanted
        ):
            return False
        pixels = rle_pixels([mask["counts"].encode("ascii") for mask in masks]) if masks else np.zeros(0)
        return pixels is not None and pixels.tolist() == [math.prod(mask["size"]) for mask in masks]
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def _check(part: list[dict], start: int, sizes: Mapping[ImageId, Size], where: str) -> None:
    """UserError for the first wrong entry of ``part``, whose first entry has the number ``start``."""
    check_detections(part, f"{where} (counted from entry {start})" if start else where)
    for number, entry in enumerate(part, start):
        image_id, segmentation = entry["image_id"], entry.get("segmentation")
        if image_id not in sizes:
            raise UserError(f"{where}: entry {number} is for image {image_id}, which the annotation does not have.")
        if segmentation:
            height, width = _size(segmentation, sizes[image_id])
            problem: str | None = "its image has no height and width"
            if height is not None and width is not None:
                problem = mask_problem(segmentation, height, width)
            if problem:
                raise UserError(f"{where}: entry {number} (image {image_id}): {problem}.")


def _size(segmentation: list | dict, size: Size) -> Size:
    """The size of an image, by the annotation or else by the RLE."""
    return tuple(segmentation["size"]) if None in size and isinstance(segmentation, dict) else size


def as_rle(segmentation: list | Mapping, size: Size) -> dict:
    """Compressed RLE from polygons or from compressed or uncompressed RLE."""
    if isinstance(segmentation, list):
        return mask_util.merge(mask_util.frPyObjects(segmentation, *size))
    if isinstance(segmentation["counts"], list):
        return mask_util.frPyObjects(dict(segmentation), *size)
    counts = segmentation["counts"]
    return {"size": list(segmentation["size"]), "counts": counts.encode() if isinstance(counts, str) else counts}
