"""Panoptic quality, counted in memory from label maps.

For one class, with the pairs of predicted and true segments of IoU > 0.5 as its true positives (TP), and unmatched
predicted and true segments as FP and FN::

    SQ = sum of IoU over TP / TP      RQ = TP / (TP + FP / 2 + FN / 2)      PQ = SQ * RQ

(Kirillov et al., Panoptic Segmentation, CVPR 2019.) Ground-truth pixels without a label (void) and crowd regions do not
count: the union excludes void pixels, and a predicted segment with more than half of its pixels on void or on the crowd
region of its class is no false positive. If an image has several crowd regions of one class, only the last one is used
for this, as in panopticapi, which computed the published metrics.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import numpy as np

VOID = 0


@dataclass(frozen=True)
class ImageMatches:
    """Outcome for one image, in class ids; processes send it to the main one.

    Attributes:
        matched: (n,) int64, class of every true positive.
        iou: (n,) float64, its IoU.
        false_positive: (p,) int64, class of every unmatched predicted segment.
        false_negative: (m,) int64, class of every missed true segment.
    """

    matched: np.ndarray
    iou: np.ndarray
    false_positive: np.ndarray
    false_negative: np.ndarray


@dataclass(frozen=True)
class ClassQuality:
    """Quality of one class, as fractions; all 0 if it is in neither truth nor prediction (``present`` False)."""

    pq: float
    sq: float
    rq: float
    present: bool

    def percent(self) -> dict[str, float]:
        """PQ, SQ and RQ in percent."""
        return {"PQ": 100 * self.pq, "SQ": 100 * self.sq, "RQ": 100 * self.rq}


def match_segments(
    true_map: np.ndarray,
    true_class: Mapping[int, int],
    crowd: Iterable[int],
    predicted_map: np.ndarray,
    predicted_class: Mapping[int, int],
) -> ImageMatches:
    """Match predicted with true segments of one image; ValueError for maps of different sizes.

    Args:
        true_map: (H, W) integer segment ids. Ids that are not in ``true_class`` are void.
        true_class: segment id -> class id.
        crowd: ids in ``true_class`` of crowd regions, in the annotation's order.
        predicted_map: (H, W) integer segment ids. Ids that are not in ``predicted_class`` are unlabelled.
        predicted_class: segment id -> class id; ids without a pixel are ignored.
    """
    if true_map.shape != predicted_map.shape:
        raise ValueError(f"the predicted map has size {predicted_map.shape}, the annotation {true_map.shape}")
    crowd = list(crowd)
    true_runs, predicted_runs, lengths = _runs(true_map.ravel(), predicted_map.ravel())
    true_ids, true_index = _listed_only(true_runs, true_class)
    predicted_ids, predicted_index = _listed_only(predicted_runs, predicted_class)
    # overlap[i, j]: number of pixels of true segment i and predicted segment j; row 0 is void, column 0 unlabelled.
    shape = (len(true_ids), len(predicted_ids))
    pairs = true_index * shape[1] + predicted_index
    # Whole numbers below 2**53 add up exactly.
    overlap = np.bincount(pairs, lengths, shape[0] * shape[1]).astype(np.int64).reshape(shape)
    true_area, predicted_area = overlap.sum(axis=1), overlap.sum(axis=0)
    true_label = np.array([-1, *(true_class[i] for i in true_ids[1:])], dtype=np.int64)
    predicted_label = np.array([-2, *(predicted_class[i] for i in predicted_ids[1:])], dtype=np.int64)
    counts = ~np.isin(true_ids, crowd)

    comparable = (true_label[:, None] == predicted_label) & counts[:, None] & (overlap > 0)
    union = true_area[:, None] + predicted_area - overlap - overlap[0]
    iou = np.divide(overlap, union, out=np.zeros(shape), where=comparable)
    found, used = np.nonzero(iou > 0.5)  # at most one pair per segment, because segments do not overlap

    missed = counts & (true_area > 0) & (true_label >= 0)
    missed[found] = False
    excused = overlap[0].copy()
    for label, segment in {true_class[segment]: segment for segment in crowd}.items():
        excused += np.where(predicted_label == label, overlap[true_ids.index(segment)], 0)
    wrong = (2 * excused <= predicted_area) & (predicted_area > 0) & (predicted_label >= 0)
    wrong[used] = False
    return ImageMatches(true_label[found], iou[found, used], predicted_label[wrong], true_label[missed])


def quality_per_class(images: Iterable[ImageMatches], classes: Iterable[int]) -> dict[int, ClassQuality]:
    """The quality of every class, from the outcomes of all images; sums are in the given order."""
    every = join_matches(images)
    labels = list(classes)
    number = 1 + max(labels, default=0)
    # Adds the values one after the other, as a loop would, so the sums are those of a loop.
    iou = np.bincount(every.matched, every.iou, number).tolist()
    counts = (
        np.bincount(part, minlength=number) for part in (every.matched, every.false_positive, every.false_negative)
    )
    tp, fp, fn = (part.astype(float).tolist() for part in counts)
    return {label: _quality(iou[label], tp[label], fp[label], fn[label]) for label in labels}


def join_matches(images: Iterable[ImageMatches]) -> ImageMatches:
    """The outcomes of several images, one after the other."""
    none = np.zeros(0, dtype=np.int64)
    parts = [ImageMatches(none, np.zeros(0), none, none), *images]
    return ImageMatches(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(ImageMatches)))


def _quality(iou: float, tp: float, fp: float, fn: float) -> ClassQuality:
    weight = tp + 0.5 * fp + 0.5 * fn
    if weight == 0:
        return ClassQuality(0.0, 0.0, 0.0, False)
    return ClassQuality(iou / weight, iou / tp if tp else 0.0, tp / weight, True)


def _runs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of pixels with the same pair of values in two flat maps: the values, and the length of each run."""
    changes = first[1:] != first[:-1]
    changes |= second[1:] != second[:-1]
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])[: first.size]
    return first[starts], second[starts], np.diff(starts, append=first.size)


def _listed_only(values: np.ndarray, listed: Mapping[int, int]) -> tuple[list, np.ndarray]:
    """Segment ids ``[VOID, id, ...]`` and, for each value, its position in that list (0 for unlisted ids)."""
    ids = sorted(set(listed) - {VOID})
    if not ids:
        return [VOID], np.zeros(values.size, dtype=np.int64)
    known = np.asarray(ids)
    position = np.searchsorted(known, values).clip(max=len(ids) - 1)
    return [VOID, *ids], np.where(known[position] == values, position + 1, 0)
