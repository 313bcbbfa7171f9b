"""What unseen segments are called: ground truth against predictions, segment by segment.

A ground-truth segment counts as found when a predicted segment, of whatever class, overlaps it with IoU > 0.5; the
class of that segment (of the best-scoring one among detections) is what it is called. Otherwise it is missed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from minibench.report.predictions import Validation, detections, panoptic_predictions, rle, with_unseen
from PADing.visualization import Segmentation, from_record

__all__ = ["Confusion", "called", "instance_confusion", "panoptic_confusion"]

FOUND = 0.5


@dataclass(frozen=True)
class Confusion:
    """``counts[i, j]``: segments of the unseen class ``rows[i]`` that were called class j; the last column: missed."""

    rows: tuple[int, ...]
    names: tuple[str, ...]
    unseen: frozenset[int]
    counts: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """Rows as fractions; zero where a class has no segment."""
        return self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)


def called(truth: Segmentation, predicted: Segmentation, classes: Iterable[int]) -> list[tuple[int, int | None]]:
    """(class, what it is called or None) of each true segment of ``classes``."""
    wanted, found = set(classes), []
    for segment, label in truth.classes.items():
        mask = truth.ids == segment
        if label not in wanted or not mask.any():
            continue
        # More than half of the union means more than half of the segment, which one prediction alone can cover.
        ids, areas = np.unique(predicted.ids[mask], return_counts=True)
        best = int(ids[areas.argmax()])
        union = mask.sum() + (predicted.ids == best).sum() - areas.max()
        name = predicted.classes.get(best) if areas.max() / union > FOUND else None
        found.append((label, name))
    return found


def panoptic_confusion(run_folder: Path, validation: Validation) -> Confusion:
    """Of all validation images of one run that wrote panoptic pictures; UserError when it did not."""
    predictions, pairs = panoptic_predictions(run_folder, validation), []
    for record in with_unseen(validation):
        if prediction := predictions.get(record["image_id"]):
            pairs += called(from_record(record), prediction.read(), validation.unseen)
    return _count(validation, pairs)


def instance_confusion(run_folder: Path, validation: Validation) -> Confusion:
    """Of all validation images of one run, from its detections, whatever their score; UserError without any."""
    found, pairs = detections(run_folder, validation), []
    for record in with_unseen(validation):
        pairs += _detected(record, found.get(record["image_id"], []), validation)
    return _count(validation, pairs)


def _detected(record: Mapping, found: list[dict], validation: Validation) -> list[tuple[int, int | None]]:
    size = (record["height"], record["width"])
    objects = [a for a in record["annotations"] if a["category_id"] in validation.unseen]
    truth = [rle(a["segmentation"], size) for a in objects]
    pairs: list[tuple[int, int | None]] = []
    answers = [d["segmentation"] for d in found]
    iou = coco_mask.iou(answers, truth, [0] * len(truth)) if answers and truth else None
    for column, item in enumerate(objects):
        hits = [] if iou is None else np.flatnonzero(iou[:, column] > FOUND)
        name = validation.contiguous.get(found[hits[0]]["category_id"]) if len(hits) else None
        pairs.append((item["category_id"], name))
    return pairs


def _count(validation: Validation, pairs: list[tuple[int, int | None]]) -> Confusion:
    rows = tuple(sorted(validation.unseen))
    counts = np.zeros((len(rows), len(validation.names) + 1), dtype=np.int64)
    for label, name in pairs:
        counts[rows.index(label), len(validation.names) if name is None else name] += 1
    return Confusion(rows, tuple(validation.names), validation.unseen, counts)
