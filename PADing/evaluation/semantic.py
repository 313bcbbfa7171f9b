"""Intersection over union and accuracy of semantic maps, over all, seen and unseen classes."""

import logging
import math
import os
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetCatalog

from PADing.data.images import check_class_labels, read_labels
from PADing.errors import UserError
from PADing.evaluation.base import ZeroShotEvaluator
from PADing.evaluation.panoptic import read_panoptic_png
from PADing.evaluation.processes import Processes, packed
from PADing.evaluation.results import harmonic_mean, log_class_table, log_table, mean
from PADing.evaluation.rle import encode_labels
from PADing.files import json_text, write_json_texts
from PADing.output_names import output_names

logger = logging.getLogger(__name__)
BLOCK = 2**17  # pixels whose classes are compared at a time


def semantic_metrics(
    confusion: np.ndarray, names: Sequence[str], unseen: frozenset[int] = frozenset(), nan_aware: bool = False
) -> OrderedDict:
    """Metrics, in percent, from a confusion matrix.

    With ``tp``, ``gt`` and ``pred``, the numbers of correct, true and predicted pixels of a class:
    IoU = tp / (gt + pred - tp) and ACC = tp / gt for classes with ground truth, NaN for others; mIoU = sum of IoU /
    number of classes in truth **or** prediction; mACC = mean of ACC; fwIoU = mean of IoU weighted by ``gt``; pACC = sum
    of tp / sum of gt.

    Args:
        confusion: (C + 1, C + 1) int64 pixel counts [predicted, true]; the last column stands for "ignore", the last
            row for predictions of none of the classes.
        names: C class names.
        unseen: indices of unseen classes. If there are any, the result also has the means over them and over the other
            classes, and the harmonic mean of the two IoU.
        nan_aware: leave classes without ground truth out of the seen and unseen means. If False, one such class makes
            its mean NaN, as in the published evaluation.

    Returns:
        ``mIoU, fwIoU, IoU-<name>..., mACC, pACC, ACC-<name>...``, ``unseen_IoU, seen_IoU, unseen_acc, seen_acc, hIoU``.
    """
    tp, gt, predicted = _pixels(confusion)
    iou, acc = _scores(confusion)
    known = gt > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        # Without any labelled pixel every metric is NaN.
        metrics = OrderedDict(mIoU=100 * iou[known].sum() / np.sum(gt + predicted > 0))
        metrics["fwIoU"] = 100 * (iou[known] * gt[known]).sum() / gt.sum()
        metrics.update((f"IoU-{name}", 100 * value) for name, value in zip(names, iou, strict=True))
        metrics["mACC"] = 100 * acc[known].sum() / known.sum()
        metrics["pACC"] = 100 * tp.sum() / gt.sum()
        metrics.update((f"ACC-{name}", 100 * value) for name, value in zip(names, acc, strict=True))
    if unseen:
        seen = set(range(len(names))) - unseen
        for name, values in (("IoU", iou), ("acc", acc)):
            for group, members in (("unseen", unseen), ("seen", seen)):
                metrics[f"{group}_{name}"] = 100 * mean((values[i] for i in sorted(members)), skip_nan=nan_aware)
        metrics["hIoU"] = harmonic_mean(metrics["seen_IoU"], metrics["unseen_IoU"])
    return OrderedDict((key, float(value)) for key, value in metrics.items())


def _pixels(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of right, true and predicted pixels of each class."""
    right = np.diagonal(confusion)[:-1].astype(float)
    return right, confusion[:, :-1].sum(axis=0).astype(float), confusion[:-1, :-1].sum(axis=1).astype(float)


def _scores(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU and ACC of each class as fractions; NaN without ground truth."""
    tp, gt, predicted = _pixels(confusion)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(gt > 0, tp / (gt + predicted - tp), np.nan), np.where(gt > 0, tp / gt, np.nan)


def group_iou(confusion: np.ndarray, members: Collection[int]) -> float:
    """``mIoU`` of :func:`semantic_metrics` over some classes; NaN if none of them occurs."""
    _, gt, predicted = _pixels(confusion)
    chosen = np.isin(np.arange(len(gt)), list(members))
    occurring = int((chosen & (gt + predicted > 0)).sum())
    return 100 * float(np.nansum(_scores(confusion)[0][chosen])) / occurring if occurring else math.nan


def group_accuracy(confusion: np.ndarray, members: Collection[int]) -> float:
    """``mACC`` of :func:`semantic_metrics` over some classes; NaN if none of them has ground truth."""
    values = _scores(confusion)[1]
    return 100 * mean(values[i] for i in sorted(members))


class SemSegGzeroEvaluator(ZeroShotEvaluator):
    """Semantic segmentation in the generalized zero-shot setting; :func:`semantic_metrics` defines the metrics.

    The ground truth is the label PNG of each image (``sem_seg_file_name`` of its dataset dict; values are contiguous
    ids). For a panoptic data set without such PNGs, labels are computed from the panoptic annotation.

    Args:
        dataset_name: registered name; its metadata needs ``stuff_classes``, its dataset dicts the labels.
        distributed: gather from all processes.
        output_dir: folder for ``sem_seg_results.json``, ``sem_seg_evaluation.pth`` (metrics) and
            ``sem_seg_predictions.json`` (masks in COCO's format); None: write nothing.
        num_classes: optional; must be the number of ``stuff_classes``.
        ignore_label: label of unlabelled pixels; by default that of the metadata, else 255.
        nan_aware: see :func:`semantic_metrics`.
        write_png: also write predicted label maps to ``<output_dir>/sem_seg_png``.
    """

    def __init__(
        self,
        dataset_name: str,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        num_classes: int | None = None,
        ignore_label: int | None = None,
        nan_aware: bool = False,
        write_png: bool = False,
    ):
        super().__init__(dataset_name, "semantic", distributed, output_dir)
        if num_classes not in (None, len(self.classes)):
            raise UserError(f"{dataset_name!r} has {len(self.classes)} classes, but num_classes is {num_classes}.")
        if ignore_label is None:
            ignore_label = self.metadata.get("ignore_label")
        self._ignore_label = 255 if ignore_label is None else ignore_label
        self._nan_aware = nan_aware
        self._write_png = write_png and output_dir is not None
        self._truth: dict[str, dict] = {}
        self._names: dict[str, str] = {}

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        size = len(self.classes) + 1
        self._confusion = np.zeros((size, size), dtype=np.int64)

    def process_image(self, record: dict, prediction: torch.Tensor) -> None:
        """Count the pixels of an image.

        Args:
            record: dataset dict with ``file_name``.
            prediction: (C, H, W) scores; their argmax is C where none of the classes is predicted. From scores of all
                classes of the split, those of the data set's classes are taken. A model with scores of seen classes
                only can be evaluated on a data set of all classes.
        """
        file_name = record["file_name"]
        labels = _best(self._restrict(prediction))
        truth = self._read_truth(file_name)
        if truth.shape != labels.shape:
            raise UserError(f"{file_name}: the predicted map has size {labels.shape}, its label image {truth.shape}.")
        self._confusion += count_pairs(labels, truth, len(self.classes) + 1)
        if self.output_dir:
            masks = [(label, mask) for label, mask in encode_labels(labels) if label < len(self.classes)]
            self.items.append((file_name, labels.shape, masks))
        if self._write_png:
            kind = np.uint8 if len(self.classes) <= 256 else np.uint16
            self.save_png(labels.astype(kind), "sem_seg_png", self._names[file_name])

    def _restrict(self, scores: torch.Tensor) -> torch.Tensor:
        channels, names, vocabulary = len(scores), self.classes.class_names, self.classes.vocabulary
        if channels == len(names):
            return scores
        seen = self.classes.seen_names
        if channels == len(seen) and names[:channels] == seen:
            # A model of stage 1 has only the seen classes, which come first, and predicts no other.
            return scores
        if channels != len(vocabulary) or not set(names) <= set(vocabulary):
            raise UserError(
                f"The model scores {channels} classes, but data set {self.classes.data_set!r} has {len(names)}. "
                "Check MODEL.SEM_SEG_HEAD.NUM_CLASSES and DATASETS.TEST: they do not belong together."
            )
        return scores[[vocabulary.index(name) for name in names]]

    def _read_truth(self, file_name: str) -> np.ndarray:
        """(H, W) contiguous ids, unsigned; the number of classes stands for "ignore"."""
        name, number = self.classes.data_set, len(self.classes)
        if not self._truth:
            self._truth = {record["file_name"]: record for record in DatasetCatalog.get(name)}
            self._names = output_names(self._truth)
            if not all("sem_seg_file_name" in record for record in self._truth.values()):
                logger.info("%s lacks semantic label images; labels come from its panoptic annotation.", name)
        record = self._truth[file_name]
        if "sem_seg_file_name" in record:
            labels = read_labels(record["sem_seg_file_name"])
        elif "pan_seg_file_name" in record:
            labels = self._labels_from_segments(record)
        else:
            raise UserError(f"{file_name} of {name!r} has neither semantic nor panoptic labels.")
        check_class_labels(labels, record.get("sem_seg_file_name", file_name), number, self._ignore_label)
        kind = np.min_scalar_type(number)
        return np.where(labels == self._ignore_label, kind.type(number), labels.astype(kind, copy=False))

    def _labels_from_segments(self, record: dict) -> np.ndarray:
        segment_map = read_panoptic_png(*os.path.split(record["pan_seg_file_name"]), record["segments_info"])
        flat = segment_map.ravel()
        starts = np.flatnonzero(np.diff(flat, prepend=flat[:1] - 1))  # of runs of one segment
        label_of = {s["id"]: s["category_id"] for s in record["segments_info"]}
        labels = np.array([label_of.get(i, self._ignore_label) for i in flat[starts].tolist()], dtype=np.int64)
        return np.repeat(labels, np.diff(starts, append=flat.size)).reshape(segment_map.shape)

    def score(self, processes: Processes) -> dict | None:
        """``{"sem_seg": metrics}`` in the main process, from the sum of the confusion matrices of all."""
        results = processes.on_main(self._results, processes.total(self._confusion))
        if self.output_dir:
            path, texts = self.path("sem_seg_predictions.json"), (t for item in self.items for t in self._lines(*item))
            processes.in_order(packed(texts, b",\n"), lambda messages: write_json_texts(path, messages))
            processes.on_main(lambda: self.save_objects((results or {})["sem_seg"], "sem_seg_evaluation.pth"))
        return results

    def _results(self, confusion: np.ndarray) -> dict:
        names = self.classes.class_names
        metrics = semantic_metrics(confusion, names, self.classes.unseen, self._nan_aware)
        self._log(metrics)
        results: OrderedDict[str, dict[str, float]] = OrderedDict({"sem_seg": metrics})
        values = {"mIoU": partial(group_iou, confusion), "mACC": partial(group_accuracy, confusion)}
        results.update(self.by_training("sem_seg", values, np.flatnonzero(_pixels(confusion)[1]).tolist()))
        absent = [name for name in names if np.isnan(metrics[f"IoU-{name}"])]
        if self.classes.unseen and absent and not self._nan_aware:
            shown = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
            logger.warning(
                f"{len(absent)} classes have no pixel in the annotation of {self.classes.data_set} ({shown}), so means "
                "over seen or unseen classes are NaN, as in the published evaluation. To leave such classes out, set "
                "TEST.SEM_SEG_NAN_AWARE True."
            )
        if self.output_dir:
            self.write_results("sem_seg_results.json", results)
        return results

    def _log(self, metrics: dict) -> None:
        classes = self.classes
        rows = [["All", metrics["mIoU"], metrics["mACC"], metrics["fwIoU"], metrics["pACC"], len(classes)]]
        if classes.unseen:
            for group, members in (("seen", classes.seen), ("unseen", classes.unseen)):
                rows.append([group.title(), metrics[f"{group}_IoU"], metrics[f"{group}_acc"], "", "", len(members)])
            rows.append(["Harmonic mean", metrics["hIoU"], "", "", "", ""])
        title = f"Semantic segmentation on {classes.data_set}"
        log_table(title, rows, ["", "mIoU", "mACC", "fwIoU", "pACC", "#categories"])
        per_class = [
            [self.starred(i), metrics[f"IoU-{name}"], metrics[f"ACC-{name}"]] for i, name in classes.names.items()
        ]
        log_class_table("Per class (* unseen)", per_class, ["class", "IoU", "ACC"], repeat=3)

    def _lines(self, file_name: str, size: tuple[int, int], masks: list[tuple[int, bytes]]) -> Iterator[bytes]:
        for label, counts in masks:
            rle = {"size": list(size), "counts": counts.decode("ascii")}
            category = int(self.classes.dataset_id(label))
            yield json_text({"file_name": file_name, "category_id": category, "segmentation": rle})


def count_pairs(predicted: np.ndarray, true: np.ndarray, number: int) -> np.ndarray:
    """Pixels with each pair of labels: (number, number) int64 [predicted, true]. Both maps have labels below it."""
    kind = np.uint16 if number <= 256 else np.int64
    pairs = np.multiply(predicted, number, dtype=kind, casting="unsafe").ravel()
    pairs += true.ravel().astype(kind, copy=False)
    starts = np.flatnonzero(pairs[1:] != pairs[:-1]) + 1
    if 4 * len(starts) > len(pairs):
        counts = np.bincount(pairs, minlength=number * number)
    else:
        # Few runs of equal pixels, so count runs with their lengths. Whole numbers below 2**53 add up exactly.
        starts = np.concatenate([[0], starts])[: len(pairs)]
        lengths = np.diff(starts, append=len(pairs))
        counts = np.bincount(pairs[starts], lengths, number * number).astype(np.int64)
    return counts.reshape(number, number)


def _best(scores: Any) -> np.ndarray:
    """(H, W) integers, the class with the highest of the scores (C, H, W), the first of equal ones."""
    if not isinstance(scores, torch.Tensor):
        return scores.argmax(dim=0).cpu().numpy().astype(np.int64)
    if scores.device.type == "cpu" and scores.dtype == torch.float32 and 0 < len(scores) <= 256:
        best = _best_by_rows(scores.detach().numpy())
        if best is not None:
            return best
    # Half the time of argmax, with the same result.
    return scores.max(dim=0).indices.cpu().numpy().astype(np.int64)


def _best_by_rows(scores: np.ndarray) -> np.ndarray | None:
    """As ``_best``, some rows after the other, so that they stay in the processor's cache; None if a score is NaN."""
    count, height, width = scores.shape
    labels = np.zeros((height, width), dtype=np.uint8)
    rows = max(1, BLOCK // max(width, 1))
    for start in range(0, height, rows):
        part = scores[:, start : start + rows]
        highest, label = part[0].copy(), labels[start : start + rows]
        beaten = np.empty(highest.shape, dtype=bool)
        own = beaten.view(np.uint8)
        for k in range(1, count):
            if np.less_equal(part[k], highest, out=beaten).all():
                continue
            np.maximum(highest, part[k], out=highest)
            # k where it is higher, else 0. Arithmetic of bytes is many times faster than writing where a mask says.
            own -= 1
            own &= np.uint8(k)
            np.maximum(label, own, out=label)
        if np.isnan(highest).any():
            return None
    return labels
