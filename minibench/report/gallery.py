"""The best, the median and the worst picture of a method: input, truth and prediction, unseen classes outlined."""

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from minibench.report.predictions import Validation, detections, panoptic_predictions, with_unseen
from PADing.evaluation.panoptic_quality import match_segments, quality_per_class
from PADing.visualization import Segmentation, from_detections, from_record, paint, read_rgb
from PADing.visualization.panoptic import display_scale

__all__ = ["Sample", "best_median_worst", "instance_samples", "panoptic_samples", "tiles"]


# Share of a detection that must be visible. One object often has several answers, which would overlay each other.
VISIBLE = 0.5


@dataclass(frozen=True)
class Sample:
    """One validation image with its quality (percent) and a way to its segmentations."""

    record: Mapping
    quality: float
    truth: Segmentation
    predicted: Segmentation


def panoptic_samples(run_folder: Path, validation: Validation) -> list[Sample]:
    """Images that show an unseen class, with their PQ: the mean over the classes in truth or prediction."""
    predictions = panoptic_predictions(run_folder, validation)
    samples = []
    for record in with_unseen(validation):
        if record["image_id"] in predictions:
            truth, predicted = from_record(record), predictions[record["image_id"]].read()
            samples.append(Sample(record, panoptic_quality(truth, predicted), truth, predicted))
    return samples


def instance_samples(run_folder: Path, validation: Validation) -> list[Sample]:
    """Images that show an unseen class, with the mean IoU of their objects; see :func:`mask_quality`.

    The predicted segmentation holds the detections that pictures show (``PADing.visualization.from_detections``),
    without those of which better ones hide more than half.
    """
    found, samples = detections(run_folder, validation), []
    for record in with_unseen(validation):
        size = (record["height"], record["width"])
        shown = _in_sight(found.get(record["image_id"], []))
        predicted = from_detections(shown, validation.contiguous, size)
        truth = from_record(record)
        samples.append(Sample(record, mask_quality(truth, predicted), truth, predicted))
    return samples


def _in_sight(found: list[dict]) -> list[dict]:
    """The detections, best first, of which at least half would be seen in front of those that are worse."""
    kept, covered = [], None
    for detection in found:
        mask = coco_mask.decode(detection["segmentation"]).astype(bool)
        covered = np.zeros_like(mask) if covered is None else covered
        if (mask & ~covered).sum() >= VISIBLE * max(mask.sum(), 1):
            kept.append(detection)
            covered |= mask
    return kept


def panoptic_quality(truth: Segmentation, predicted: Segmentation) -> float:
    """PQ of one image in percent, 0 for an empty one."""
    match = match_segments(truth.ids, truth.classes, (), predicted.ids, predicted.classes)
    labels = {*truth.classes.values(), *predicted.classes.values()}
    values = [q.pq for q in quality_per_class([match], labels).values() if q.present]
    return 100 * statistics.fmean(values) if values else 0.0


def mask_quality(truth: Segmentation, predicted: Segmentation) -> float:
    """Mean over the true segments, in percent, of the IoU with the best predicted segment of the same class."""
    values = []
    for segment, label in truth.classes.items():
        mask = truth.ids == segment
        others = (predicted.ids == other for other, name in predicted.classes.items() if name == label)
        if mask.any():
            values.append(max(((mask & other).sum() / (mask | other).sum() for other in others), default=0.0))
    return 100 * statistics.fmean(values) if values else 0.0


def best_median_worst(samples: list[Sample]) -> list[tuple[str, Sample]]:
    """The three, without repetition; equal qualities in the order of image ids."""
    ranked = sorted(samples, key=lambda s: (-s.quality, s.record["image_id"]))
    if not ranked:
        return []
    places = {"Best": 0, "Median": len(ranked) // 2, "Worst": len(ranked) - 1}
    chosen, used = [], set()
    for title, place in places.items():
        if place not in used:
            used.add(place)
            chosen.append((title, ranked[place]))
    return chosen


def tiles(sample: Sample, validation: Validation) -> Iterator[tuple[str, np.ndarray]]:
    """(caption, (H, W, 3) uint8 RGB) of input, truth and prediction, enlarged so that names can be read."""
    image = read_rgb(sample.record["file_name"])
    scale = display_scale(*image.shape[:2])
    yield "Input", cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    names, unseen = validation.names, sorted(validation.unseen)
    yield "Truth", paint(image, sample.truth, names, unseen, scale)
    yield "Prediction", paint(image, sample.predicted, names, unseen, scale)
