"""COCO's matching of detections with the ground truth, image by image.

The rules are COCO's. For each image and class, detections in descending order of score take the free object with the
largest IoU that is at least the threshold. Crowd regions and objects outside the area range are ignored: a detection
that matches one is neither right nor wrong, and other objects are matched first. Only a few bytes per detection are
kept, so memory does not limit the number of images.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pycocotools.mask as mask_util
from pycocotools.coco import COCO

from PADing.errors import UserError
from PADing.evaluation.detections import ImageDetections, ImageId, as_rle

# Pixels, both ends included: all, small, medium, large.
AREA_RANGES = ((0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10))
RECALL_POINTS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Outcome:
    """The outcome of n detections, in the order of image ids, then of classes, then of descending scores.

    Attributes:
        category: (n,) int32, position in the list of classes. score: (n,) float64.
        rank: (n,) int32, the number of detections of the same image and class with a higher score.
        matched, ignored: (n, b) uint8, packed bits (T, A) for all thresholds and area ranges.
    """

    category: np.ndarray
    score: np.ndarray
    rank: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray


def match_images(
    truth: COCO,
    detections: Iterable[ImageDetections],
    kind: str,
    iou: Sequence[float],
    category_ids: Sequence[int],
    most: int,
    class_agnostic: bool,
) -> tuple[Outcome, np.ndarray, list[tuple[ImageId, int]]]:
    """Match the detections of all images, or of those of one process.

    Args:
        truth: annotation.
        detections: image by image, each image once.
        kind: "segm" or "bbox".
        iou: T thresholds.
        category_ids: K classes, ascending; others are ignored.
        most: maximal number of detections per image (and class).
        class_agnostic: treat all classes as one.

    Returns:
        the outcome; the number of objects to find, (K, A) int64, where K is 1 with ``class_agnostic``; and for each
        image in the order of the outcome its id and number of detections.

    Raises:
        UserError: a detection lacks the field that ``kind`` needs.
    """
    ids, wanted = np.asarray(category_ids, dtype=np.int64), set(category_ids)
    thresholds = np.minimum(np.asarray(iou, dtype=float), 1 - 1e-10)
    used = {a["id"]: a for a in truth.anns.values() if a["category_id"] in wanted and _shown(a, kind)}
    counted = [annotation for annotation in used.values() if not annotation["iscrowd"]]
    totals = np.zeros((1 if class_agnostic else len(ids), len(AREA_RANGES)), dtype=np.int64)
    places = np.searchsorted(ids, [a["category_id"] for a in counted]) * (not class_agnostic)
    np.add.at(totals, places, ~_outside(np.array([a["area"] for a in counted])).T)
    bits = np.zeros((0, -(-len(thresholds) * len(AREA_RANGES) // 8)), dtype=np.uint8)
    parts = [Outcome(np.zeros(0, np.int32), np.zeros(0), np.zeros(0, np.int32), bits, bits)]
    ordered = sorted(detections, key=lambda item: item.image_id)
    for found in ordered:
        objects = [a for a in truth.imgToAnns.get(found.image_id, ()) if a["id"] in used]
        objects.sort(key=lambda a: a["category_id"])  # decides ties if classes are ignored
        image = truth.imgs[found.image_id]
        parts.append(_match_image(found, objects, image, kind, thresholds, ids, most, class_agnostic))
    lengths = [(found.image_id, len(part.score)) for found, part in zip(ordered, parts[1:], strict=True)]
    joined = Outcome(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Outcome)))
    return joined, totals, lengths


def in_order_of_images(outcome: Outcome, lengths: Sequence[tuple[ImageId, int]]) -> Outcome:
    """The outcomes of several processes, one after the other, as that of a single one; equal scores need an order.

    Args:
        outcome: of n detections.
        lengths: the images in their order in ``outcome``, with the number of detections of each.
    """
    images = [image_id for image_id, _ in lengths]
    places = sorted(range(len(images)), key=images.__getitem__)
    if places == list(range(len(images))):
        return outcome
    ends = np.cumsum([length for _, length in lengths])
    starts = np.concatenate([[0], ends[:-1]])
    index = np.concatenate([np.arange(starts[i], ends[i]) for i in places])
    return Outcome(*(getattr(outcome, f.name)[index] for f in fields(Outcome)))


def _match_image(
    found: ImageDetections,
    objects: list[dict],
    image: dict,
    kind: str,
    thresholds: np.ndarray,
    ids: np.ndarray,
    most: int,
    class_agnostic: bool,
) -> Outcome:
    index = np.flatnonzero(np.isin(found.category_ids, ids))
    place = np.searchsorted(ids, found.category_ids[index])
    category = (place * (not class_agnostic)).astype(np.int32)
    # By class, then by descending score; ties keep the order of category ids, then the given order.
    by_score = np.lexsort((place, -found.scores[index], category))
    index, category = index[by_score], category[by_score]
    rank = (np.arange(len(index)) - np.searchsorted(category, category)).astype(np.int32)
    index, category, rank = index[rank < most], category[rank < most], rank[rank < most]
    shapes, areas = _shapes(found, index, kind)
    outside = _outside(areas)
    matched = np.zeros((len(thresholds), *outside.shape), dtype=bool)  # (T, A, n)
    ignored = np.repeat(outside[None], len(thresholds), axis=0)
    true_category = np.searchsorted(ids, [a["category_id"] for a in objects]) * (not class_agnostic)
    for label in np.intersect1d(category, true_category):
        start, stop = np.searchsorted(category, [label, label + 1])
        own = [objects[g] for g in np.flatnonzero(true_category == label)]
        area, crowd = np.array([a["area"] for a in own], dtype=float), np.array([bool(a["iscrowd"]) for a in own])
        size = image.get("height"), image.get("width")
        true_shapes = [as_rle(a["segmentation"], size) if kind == "segm" else a["bbox"] for a in own]
        overlap = mask_util.iou(shapes[start:stop], true_shapes, crowd.tolist())
        _match(overlap, area, crowd, thresholds, matched[..., start:stop], ignored[..., start:stop])
    cells = matched.shape[0] * matched.shape[1]
    bits = (np.packbits(flags.reshape(cells, -1).T, axis=1) for flags in (matched, ignored))
    return Outcome(category, found.scores[index], rank, *bits)


def _match(
    overlap: np.ndarray,
    area: np.ndarray,
    crowd: np.ndarray,
    thresholds: np.ndarray,
    matched: np.ndarray,
    ignored: np.ndarray,
) -> None:
    """Fill in ``matched`` and ``ignored`` (T, A, D) of one image and class, from its IoU ``overlap`` (D, G).

    Detections are in descending order of score. On entry ``ignored`` marks those outside the area ranges. ``area`` and
    ``crowd``: (G,).
    """
    count = overlap.shape[1]
    spare = crowd | _outside(area)  # (A, G): objects that are ignored
    taken = np.zeros((*matched.shape[:2], count), dtype=bool)
    t, a = np.ogrid[: matched.shape[0], : matched.shape[1]]
    for d in np.flatnonzero(overlap.max(axis=1) >= thresholds.min()):
        possible = (overlap[d] >= thresholds[:, None])[:, None, :] & (~taken | crowd)  # (T, A, G)
        wanted = possible & ~spare
        pool = np.where(wanted.any(axis=2, keepdims=True), wanted, possible)
        # Among equal overlaps take the last object.
        best = count - 1 - np.where(pool, overlap[d], -1.0)[..., ::-1].argmax(axis=2)
        hit = pool.any(axis=2)
        matched[..., d] = hit
        ignored[..., d] = np.where(hit, spare[a, best], ignored[..., d])
        taken[t, a, best] |= hit


def precision_recall(
    outcome: Outcome, totals: np.ndarray, thresholds: int, max_dets: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean precision at the 101 recall points, and recall; NaN for cells without an object.

    Args:
        outcome, totals: from :func:`match_images`.
        thresholds: the number of thresholds, T.
        max_dets: M maximal numbers of detections, ascending.

    Returns:
        precision (T, K, A), for the last of ``max_dets``, and recall (T, K, A, M), float64.
    """
    classes, ranges = totals.shape
    precision = np.full((thresholds, classes, ranges), np.nan)
    recall = np.full((thresholds, classes, ranges, len(max_dets)), np.nan)
    by_class = np.argsort(outcome.category, kind="stable")
    edges = np.searchsorted(outcome.category[by_class], np.arange(classes + 1))
    for k in range(classes):
        own = by_class[edges[k] : edges[k + 1]]
        own = own[np.argsort(-outcome.score[own], kind="stable")]
        rank = outcome.rank[own]
        matched, ignored = (
            np.unpackbits(bits[own], axis=1, count=thresholds * ranges).astype(bool)
            for bits in (outcome.matched, outcome.ignored)
        )
        for cell in range(thresholds * ranges):
            t, a = divmod(cell, ranges)
            total = totals[k, a]
            if total == 0:
                continue
            counts = ~ignored[:, cell]
            right = matched[:, cell] & counts
            for m, most in enumerate(max_dets):
                recall[t, k, a, m] = np.count_nonzero(right[rank < most]) / total
            right = right[counts & (rank < max_dets[-1])]
            precision[t, k, a] = _mean_precision(right, total)
    return precision, recall


def _mean_precision(right: np.ndarray, total: int) -> float:
    """Mean precision of one cell; ``right``: (n,) bool, whether each detection is right, in descending order."""
    found = np.cumsum(right)
    precision = found / np.arange(1, len(right) + 1)
    # Precision at a recall point is the largest one at that recall or more; 0 beyond the last recall.
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(found / total, RECALL_POINTS, side="left")
    return float(np.append(precision, 0.0)[place].mean())


def _shown(annotation: dict, kind: str) -> bool:
    """Whether an object has a mask ("segm") or a box ("bbox"); annotation may have boxes without masks."""
    return bool(annotation.get("segmentation")) if kind == "segm" else "bbox" in annotation


def _shapes(found: ImageDetections, chosen: np.ndarray, kind: str) -> tuple[list, np.ndarray]:
    """The shapes for pycocotools, and their areas; UserError if a detection lacks them."""
    if kind == "segm":
        shapes = [found.rle(i) for i in chosen]
        if any(shape is None for shape in shapes):
            raise UserError(f"A detection for image {found.image_id} has no 'segmentation', which masks need.")
        return shapes, np.asarray(mask_util.area(shapes), dtype=float)
    boxes = np.full((len(chosen), 4), np.nan) if found.boxes is None else found.boxes[chosen]  # a copy
    for row in np.flatnonzero(np.isnan(boxes[:, 0])):
        rle = found.rle(chosen[row])
        if rle is None:
            raise UserError(f"A detection for image {found.image_id} has neither a 'bbox' nor a 'segmentation'.")
        boxes[row] = mask_util.toBbox(rle)
    return boxes.tolist(), boxes[:, 2] * boxes[:, 3]


def _outside(areas: np.ndarray) -> np.ndarray:
    """Whether areas (n,) are outside the area ranges: (A, n) bool."""
    low, high = np.array(AREA_RANGES).T[..., None]
    return (areas < low) | (areas > high)
