"""COCO's matching of detections with the ground truth, image by image.

The rules are COCO's: per image and class, detections in falling order of score take the object with which their IoU is
largest and at least the threshold. Crowd regions, and objects outside of the range of areas, are ignored: a detection
that matches one counts neither as right nor as wrong, and objects that count come first. An image leaves a few bytes
per detection, so any number of images can be evaluated.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pycocotools.mask as mask_util
from pycocotools.coco import COCO

from PADing.errors import UserError
from PADing.evaluation.detections import ImageDetections, as_rle

# Pixels, both ends included: all, small, medium, large.
AREA_RANGES = ((0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10))
RECALL_POINTS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Outcome:
    """What became of the n detections of some images, in the order of the images' ids, then of falling scores.

    Attributes:
        category: (n,) int32, position in the list of classes. score: (n,) float64.
        rank: (n,) int32, how many of its image and class have a higher score.
        matched, ignored: (n, b) uint8, the bits (T, A) of all thresholds and ranges of areas.
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
) -> tuple[Outcome, np.ndarray]:
    """Match the detections of all images.

    Args:
        truth: annotation. detections: image by image, each image once.
        kind: "segm" or "bbox". iou: T thresholds. category_ids: K classes, ascending; others play no part.
        most: detections per image (and class) that count. class_agnostic: treat all classes as one.

    Returns:
        the outcome, and the number of objects to be found, (K, A) int64; K is 1 with ``class_agnostic``. UserError for
        a detection without what ``kind`` needs.
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
    for found in sorted(detections, key=lambda item: item.image_id):
        objects = [a for a in truth.imgToAnns.get(found.image_id, ()) if a["id"] in used]
        objects.sort(key=lambda a: a["category_id"])  # for ties, where classes play no part
        image = truth.imgs[found.image_id]
        parts.append(_match_image(found, objects, image, kind, thresholds, ids, most, class_agnostic))
    return Outcome(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Outcome))), totals


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
    # By class, then by falling score; equals keep the order of their ids, then that in which they were given.
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

    The best detection is first; ``ignored`` says which are outside of the ranges; ``area`` and ``crowd``: (G,).
    """
    count = overlap.shape[1]
    spare = crowd | _outside(area)  # (A, G): objects that are ignored
    taken = np.zeros((*matched.shape[:2], count), dtype=bool)
    t, a = np.ogrid[: matched.shape[0], : matched.shape[1]]
    for d in np.flatnonzero(overlap.max(axis=1) >= thresholds.min()):
        possible = (overlap[d] >= thresholds[:, None])[:, None, :] & (~taken | crowd)  # (T, A, G)
        wanted = possible & ~spare
        pool = np.where(wanted.any(axis=2, keepdims=True), wanted, possible)
        # Of equal overlaps the last object wins.
        best = count - 1 - np.where(pool, overlap[d], -1.0)[..., ::-1].argmax(axis=2)
        hit = pool.any(axis=2)
        matched[..., d] = hit
        ignored[..., d] = np.where(hit, spare[a, best], ignored[..., d])
        taken[t, a, best] |= hit


def precision_recall(
    outcome: Outcome, totals: np.ndarray, thresholds: int, max_dets: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean precision at the 101 recall points, and recall; NaN where there is nothing to be found.

    Args:
        outcome, totals: from :func:`match_images`. thresholds: their number, T. max_dets: M numbers, ascending.

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
    """``right``: (n,) bool, whether each detection is right, best first."""
    found = np.cumsum(right)
    precision = found / np.arange(1, len(right) + 1)
    # At a recall point the best precision from there on counts; beyond the last one it is 0.
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(found / total, RECALL_POINTS, side="left")
    return float(np.append(precision, 0.0)[place].mean())


def _shown(annotation: dict, kind: str) -> bool:
    """Whether an object has what is compared; annotation may have boxes without masks."""
    return bool(annotation.get("segmentation")) if kind == "segm" else "bbox" in annotation


def _shapes(found: ImageDetections, chosen: np.ndarray, kind: str) -> tuple[list, np.ndarray]:
    """What pycocotools compares, and areas."""
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
    """Whether areas (n,) lie outside of the ranges: (A, n)."""
    low, high = np.array(AREA_RANGES).T[..., None]
    return (areas < low) | (areas > high)
