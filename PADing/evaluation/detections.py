"""Detections of one image in little memory, and COCO's result format, which they are read from and written to.

As Python objects a detection with a mask takes more than a kilobyte, of which COCO's val2014 has four million; in these
arrays it takes about 250 bytes.
"""

import math
from array import array
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pycocotools.mask as mask_util

from PADing.data.coco_schema import check_detections, mask_problem
from PADing.errors import UserError

__all__ = ["ImageDetections", "as_rle", "by_image"]

# Entries that are checked at a time.
PART = 10_000


@dataclass(frozen=True)
class ImageDetections:
    """What was found in one image.

    Attributes:
        image_id: of the annotation.
        category_ids: (n,) int64, ids of the annotation. scores: (n,) float64.
        boxes: (n, 4) float64 XYWH in pixels; a row of NaN where there is none; None: none at all.
        masks: n compressed RLE strings, None where there is none; None: none at all.
        size: (H, W) of the masks.
    """

    image_id: Hashable
    category_ids: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray | None = None
    masks: Sequence[bytes | None] | None = None
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def rle(self, index: int) -> dict | None:
        """The mask of a detection as pycocotools takes it."""
        counts = None if self.masks is None else self.masks[index]
        return None if counts is None else {"size": list(self.size), "counts": counts}

    def results(self) -> Iterator[dict]:
        """One dict a detection, in COCO's result format."""
        for i, (category, score) in enumerate(zip(self.category_ids.tolist(), self.scores.tolist(), strict=True)):
            result = {"image_id": self.image_id, "category_id": category, "score": score}
            if self.boxes is not None and not math.isnan(self.boxes[i, 0]):
                result["bbox"] = self.boxes[i].tolist()
            if (rle := self.rle(i)) is not None:
                result["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode("ascii")}
            yield result


def by_image(
    results: Iterable[dict], sizes: Mapping[Hashable, tuple[int | None, int | None]], where: str
) -> list[ImageDetections]:
    """COCO's result format -> detections image by image.

    Args:
        results: dicts ``image_id, category_id, score`` and ``bbox`` or ``segmentation`` (RLE or polygons).
        sizes: (H, W) by image id, of all images of the annotation; None where it does not say.
        where: what the results are, for messages.

    Raises:
        UserError: what is wrong with which entry.
    """
    rows: dict[Hashable, list[tuple]] = {}
    for number, result in _checked(results, where):
        image_id, rle = result["image_id"], None
        if image_id not in sizes:
            raise UserError(f"{where}: entry {number} is for image {image_id}, which the annotation does not have.")
        if segmentation := result.get("segmentation"):
            size = sizes[image_id]
            if None in size and isinstance(segmentation, dict):
                size = tuple(segmentation["size"])
            problem = "its image has no height and width" if None in size else mask_problem(segmentation, *size)
            if problem:
                raise UserError(f"{where}: entry {number} (image {image_id}): {problem}.")
            rle = as_rle(segmentation, size)
            rle = (tuple(rle["size"]), rle["counts"])
        box = array("d", result.get("bbox") or (math.nan,) * 4)
        row = (result["category_id"], result["score"], box, rle)
        rows.setdefault(image_id, []).append(row)
    return [_of_image(image_id, rows.pop(image_id), where) for image_id in list(rows)]


def _checked(results: Iterable[dict], where: str) -> Iterator[tuple[int, dict]]:
    """(number, entry), checked a part at a time: there may be millions."""
    results, start = iter(results), 0
    while part := list(islice(results, PART)):
        check_detections(part, f"{where} (counted from entry {start})" if start else where)
        yield from enumerate(part, start)
        start += len(part)


def _of_image(image_id: Hashable, rows: list[tuple], where: str) -> ImageDetections:
    categories, scores, boxes, rles = zip(*rows, strict=True)
    sizes = {rle[0] for rle in rles if rle is not None}
    if len(sizes) > 1:
        raise UserError(f"{where}: the masks of image {image_id} have different sizes: {sorted(sizes)[:3]}.")
    return ImageDetections(
        image_id,
        np.array(categories, dtype=np.int64),
        np.array(scores, dtype=np.float64),
        np.array(boxes, dtype=np.float64),
        [None if rle is None else rle[1] for rle in rles] if sizes else None,
        *sizes,
    )


def as_rle(segmentation: list | Mapping, size: tuple[int, int]) -> dict:
    """Compressed RLE of polygons, of uncompressed or of compressed RLE."""
    if isinstance(segmentation, list):
        return mask_util.merge(mask_util.frPyObjects(segmentation, *size))
    if isinstance(segmentation["counts"], list):
        return mask_util.frPyObjects(dict(segmentation), *size)
    counts = segmentation["counts"]
    return {"size": list(segmentation["size"]), "counts": counts.encode() if isinstance(counts, str) else counts}
