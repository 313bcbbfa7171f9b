"""COCO's average precision and recall, per class and IoU threshold, and the zero-shot metrics made of them.

One run at the IoU thresholds 0.4 and 0.5, 0.55, ..., 0.95 gives both COCO's standard metrics and those of zero-shot
instance segmentation. The numbers are those of pycocotools.
"""

import contextlib
import io
import logging
import math
import os
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pycocotools.mask as mask_util
from pycocotools.coco import COCO

from PADing.data.coco_schema import check_instances, usable
from PADing.errors import UserError
from PADing.evaluation.coco_matching import match_images, precision_recall
from PADing.evaluation.detections import ImageDetections, as_rle, by_image
from PADing.evaluation.results import harmonic_mean, log_class_table, mean
from PADing.files import read_json, read_json_list

__all__ = [
    "CocoMetrics",
    "coco_eval_revise",
    "evaluate_detections",
    "load_ground_truth",
    "split_metrics",
    "zsi_metrics",
]

logger = logging.getLogger(__name__)

STANDARD_IOU = tuple(np.linspace(0.5, 0.95, 10).tolist())
ZSI_IOU = (0.4, 0.5, 0.6)
AREAS = ("all", "small", "medium", "large")
ROW_NAMES = ("AP50_seen", "AP50_unseen", "AR50_seen", "AR50_unseen", "AP50_hm", "AR50_hm")


@dataclass(frozen=True)
class CocoMetrics:
    """Average precision and recall as fractions; NaN for classes without ground truth (of that size).

    Attributes:
        iou: T thresholds.
        category_ids: K ids in the annotation, ascending. Class-agnostic metrics have the one id -1.
        precision: (T, K, 4) float64: mean of the precision at the 101 recall points; last axis: see ``AREAS``.
        recall: (T, K, 4, M) float64: the largest recall; last axis: numbers of detections per image, ``max_dets``.
        max_dets: M numbers. ``precision`` is for the last.
    """

    iou: tuple[float, ...]
    category_ids: tuple[int, ...]
    precision: np.ndarray
    recall: np.ndarray
    max_dets: tuple[int, ...]

    def ap(self, iou: float | None = None, area: str = "all", categories: Collection[int] | None = None) -> float:
        """Mean AP over classes, at one IoU or (None) over 0.5:0.95. NaN when no class has ground truth."""
        return self._mean(self.precision, iou, area, categories)

    def ar(
        self, iou: float | None = None, area: str = "all", categories: Collection[int] | None = None, max_dets: int = -1
    ) -> float:
        """Mean recall, like :meth:`ap`; ``max_dets`` is a position in ``self.max_dets``."""
        return self._mean(self.recall[..., max_dets], iou, area, categories)

    def _mean(self, values: np.ndarray, iou: float | None, area: str, categories: Collection[int] | None) -> float:
        rows = [self._at(t) for t in (STANDARD_IOU if iou is None else (iou,))]
        wanted = None if categories is None else set(categories)
        columns = [k for k, c in enumerate(self.category_ids) if wanted is None or c in wanted]
        return mean(values[np.ix_(rows, columns)][..., AREAS.index(area)].ravel())

    def _at(self, iou: float) -> int:
        return int(np.argmin(np.abs(np.asarray(self.iou) - iou)))


def load_ground_truth(source: str | os.PathLike | dict) -> COCO:
    """Index an annotation in COCO's instance format (a path, or its content, which is not changed).

    Fields that own data often lack (``iscrowd``, ``area``, ``bbox``) are filled in. Images without annotation count.

    Raises:
        UserError: a missing or malformed file, named.
    """
    if isinstance(source, dict):
        content = {**source, "annotations": [dict(a) for a in source.get("annotations", ())]}
        where = "the annotation"
    else:
        where = f"Annotation file {os.fspath(source)}"
        content = read_json(source, "Annotation file")
        check_instances(content, where, complete=False)
        content["annotations"] = _with_usable_masks(content["annotations"], where)
    if not isinstance(content, dict) or not {"images", "categories", "annotations"} <= set(content):
        raise UserError(f"{where} is not in COCO's instance format: it needs images, categories and annotations.")
    content.setdefault("info", {})
    sizes = {image["id"]: (image.get("height"), image.get("width")) for image in content["images"]}
    for annotation in content["annotations"]:
        if annotation["image_id"] not in sizes:
            raise UserError(
                f"{where}: annotation {annotation.get('id')} belongs to image {annotation['image_id']}, which `images` "
                "does not list."
            )
        _complete(annotation, sizes[annotation["image_id"]])
    with _quiet():
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
    return truth


def evaluate_detections(
    truth: COCO,
    detections: Iterable[ImageDetections | dict],
    kind: str,
    *,
    iou: Sequence[float] = (ZSI_IOU[0], *STANDARD_IOU),
    category_ids: Collection[int] | None = None,
    max_dets: Sequence[int] = (1, 10, 100),
    class_agnostic: bool = False,
) -> CocoMetrics:
    """Match detections with the ground truth and return precision and recall.

    Args:
        truth: from :func:`load_ground_truth`.
        detections: image by image, or in COCO's result format. None at all is legal: every class with ground truth then
            has AP and recall 0.
        kind: "segm" or "bbox". For "segm", sizes are those of the masks.
        iou: thresholds.
        category_ids: classes to evaluate; by default all of the annotation.
        max_dets: detections per image (and class) that count, ascending.
        class_agnostic: ignore classes, as for proposals.

    Raises:
        UserError: a detection of an image that the annotation does not have, or without the field that ``kind`` needs.
    """
    if kind not in ("segm", "bbox"):
        raise UserError(f"Detections are evaluated as 'segm' or 'bbox', not {kind!r}.")
    given = list(detections)
    entries = [item for item in given if isinstance(item, dict)]
    found = [item for item in given if isinstance(item, ImageDetections)]
    found += by_image(entries, image_sizes(truth), "Detections")
    met = set()
    for item in found:
        if item.image_id not in truth.imgs:
            raise UserError(f"There is a detection for image {item.image_id}, which the annotation does not have.")
        if item.image_id in met:
            raise UserError(f"Image {item.image_id} was predicted twice; call reset() before evaluating again.")
        met.add(item.image_id)
    ids = sorted(set(truth.cats if category_ids is None else category_ids))
    outcome, totals = match_images(truth, found, kind, iou, ids, max(max_dets), class_agnostic)
    precision, recall = precision_recall(outcome, totals, len(iou), max_dets)
    return CocoMetrics(tuple(iou), (-1,) if class_agnostic else tuple(ids), precision, recall, tuple(max_dets))


def image_sizes(truth: COCO) -> dict:
    """(H, W) by image id; None where the annotation does not say."""
    return {key: (image.get("height"), image.get("width")) for key, image in truth.imgs.items()}


def split_metrics(metrics: CocoMetrics, seen: Collection[int], unseen: Collection[int]) -> OrderedDict:
    """Seen mean, unseen mean and harmonic mean, in percent, of AP (IoU 0.5:0.95), AP50 and AR50 (recall at IoU 0.5).

    Args:
        metrics: of all classes.
        seen, unseen: category ids. Classes without ground truth count for neither.
    """
    result = OrderedDict()
    for name, function, iou in (("AP", metrics.ap, None), ("AP50", metrics.ap, 0.5), ("AR50", metrics.ar, 0.5)):
        values = [100 * function(iou, categories=ids) for ids in (seen, unseen)]
        result[f"{name}_seen"], result[f"{name}_unseen"] = values
        result[f"{name}_hm"] = harmonic_mean(*values)
    return result


def zsi_metrics(metrics: CocoMetrics) -> OrderedDict:
    """``AP@40 AP@50 AP@60 R100@40 R100@50 R100@60`` in percent: zero-shot instance segmentation's own metrics."""
    result = OrderedDict((f"AP@{round(100 * t)}", 100 * metrics.ap(t)) for t in ZSI_IOU)
    result.update((f"R100@{round(100 * t)}", 100 * metrics.ar(t)) for t in ZSI_IOU)
    return result


def coco_eval_revise(
    result_files,
    result_types: Sequence[str],
    coco,
    max_dets: Sequence[int] = (100, 300, 1000),
    classwise: bool = False,
    gzsd: bool = False,
    num_seen_classes: int | None = None,
    *,
    unseen: Collection[str] | None = None,
) -> list[tuple[float, ...]] | None:
    """Evaluate result files of zero-shot instance segmentation or detection; log the metrics.

    Args:
        result_files: path of a COCO result file (or its content, a list), or a dict of these by result type.
        result_types: any of "segm", "bbox" (AP and recall at IoU 0.4, 0.5, 0.6 with 100 detections), "proposal" (the
            same for boxes, ignoring classes, for each of ``max_dets``) and "proposal_fast" (their recall at IoU 0.5).
        coco: annotation file, its content, or a pycocotools ``COCO``.
        max_dets: numbers of proposals per image; the other types always use COCO's 1, 10, 100.
        classwise: also log tables per class.
        gzsd: the generalized setting: return seen and unseen metrics.
        num_seen_classes: with ``gzsd``: the first so many categories, in the file's order, are seen.
        unseen: names of the unseen classes, instead of ``num_seen_classes``.

    Returns:
        With ``gzsd`` one tuple (seen AP50, unseen AP50, seen recall, unseen recall, harmonic mean of AP50, of recall)
        in percent per "segm", "bbox" or "proposal" entry (NaN for "proposal", which knows no classes); otherwise an
        empty list; None with "proposal_fast".

    Raises:
        UserError: unknown type or class name, missing file, or ``gzsd`` without a split.
    """
    truth = load_ground_truth(coco.dataset if isinstance(coco, COCO) else coco)
    names = OrderedDict((category["id"], category["name"]) for category in truth.dataset["categories"])
    seen_ids, unseen_ids = _split(names, num_seen_classes, unseen) if gzsd else ((), ())
    if gzsd:
        logger.info("%d seen classes; %d unseen: %s", len(seen_ids), len(unseen_ids), [names[i] for i in unseen_ids])
    rows: list[tuple[float, ...]] | None = []
    loaded = None
    for kind in result_types:
        if kind not in ("segm", "bbox", "proposal", "proposal_fast"):
            raise UserError(f"Result type {kind!r} is unknown; choose from segm, bbox, proposal, proposal_fast.")
        source = result_files[kind] if isinstance(result_files, dict) else result_files
        if loaded is None or source is not loaded[0]:
            loaded = (source, _load_results(source, truth))
            _check_common_classes(truth, loaded[1])
        detections = loaded[1]
        if kind == "proposal_fast":
            metrics = evaluate_detections(
                truth, detections, "bbox", iou=(0.5,), max_dets=sorted(max_dets), class_agnostic=True
            )
            for position, number in enumerate(sorted(max_dets)):
                logger.info("AR@%d = %.4f", number, metrics.ar(0.5, max_dets=position))
            rows = None
            continue
        for limit in sorted(max_dets) if kind == "proposal" else (100,):
            limits = (limit,) if kind == "proposal" else (1, 10, 100)
            metrics = evaluate_detections(
                truth,
                detections,
                "bbox" if kind == "proposal" else kind,
                iou=ZSI_IOU,
                max_dets=limits,
                class_agnostic=kind == "proposal",
            )
            _log_metrics(metrics, kind)
        if classwise and kind != "proposal":
            log_per_class(metrics, {i: names[i] + "*" * (i in unseen_ids) for i in names}, kind)
        if gzsd and rows is not None:
            values = split_metrics(metrics, seen_ids, unseen_ids)
            rows.append(tuple(values[name] for name in ROW_NAMES))
            text = ", ".join(f"{name} {value:.4f}" for name, value in zip(ROW_NAMES, rows[-1], strict=True))
            logger.info("%s: %s", kind, text)
    return rows


def _log_metrics(metrics: CocoMetrics, kind: str) -> None:
    form, most = "%s: %s @[ IoU=%.2f | area=all | maxDets=%d ] = %.3f", metrics.max_dets[-1]
    for title, function in (("Average Precision  (AP)", metrics.ap), ("Average Recall     (AR)", metrics.ar)):
        for t in ZSI_IOU:
            logger.info(form, kind, title, t, most, function(t))


def log_per_class(metrics: CocoMetrics, names: Mapping[int, str], title: str) -> None:
    """Log AP (when 0.5:0.95 was evaluated), AP50 and recall at IoU 0.5 of every class: names by category id."""
    full = len(metrics.iou) >= len(STANDARD_IOU)
    rows = []
    for category_id, name in names.items():
        one = (category_id,)
        values = [metrics.ap(categories=one)] if full else []
        values += [metrics.ap(0.5, categories=one), metrics.ar(0.5, categories=one)]
        rows.append([name, *(100 * value for value in values)])
    headers = ["class", *(["AP"] if full else []), "AP50", "AR50"]
    log_class_table(f"{title} per class (* unseen; nan: no ground truth)", rows, headers)


def _split(names: dict[int, str], num_seen: int | None, unseen: Collection[str] | None) -> tuple[list[int], list[int]]:
    ids = list(names)
    if unseen is not None:
        unknown = sorted(set(unseen) - set(names.values()))
        if unknown:
            raise UserError(f"The annotation has no category called {', '.join(map(repr, unknown))}.")
        return [i for i in ids if names[i] not in set(unseen)], [i for i in ids if names[i] in set(unseen)]
    if num_seen is None:
        raise UserError("Seen and unseen metrics need the names of the unseen classes, or the number of seen ones.")
    if not 0 < num_seen < len(ids):
        raise UserError(f"Of {len(ids)} categories, 1..{len(ids) - 1} can be seen, not {num_seen}.")
    return ids[:num_seen], ids[num_seen:]


def _load_results(source, truth: COCO) -> list[ImageDetections]:
    where = "Results"
    if isinstance(source, (str, os.PathLike)):
        where = f"Results {os.fspath(source)}"
        source = read_json_list(source, "Results")
    return by_image(source, image_sizes(truth), where)


def _check_common_classes(truth: COCO, detections: list[ImageDetections]) -> None:
    """Say what plays no part because ``categories`` does not list its class; refuse when nothing is left."""
    for what, ids in (
        ("annotations", [annotation["category_id"] for annotation in truth.anns.values()]),
        ("detections", [i for item in detections for i in item.category_ids.tolist()]),
    ):
        unlisted = [i for i in ids if i not in truth.cats]
        if not unlisted:
            continue
        text = f"{len(unlisted)} of {len(ids)} {what} are of categories that the annotation's `categories` do not list"
        shown = ", ".join(map(str, sorted(set(unlisted))[:5]))
        if len(unlisted) == len(ids):
            raise UserError(f"{text} (ids {shown}). Both files must use the ids of `categories`, not a model's own.")
        logger.warning("%s (ids %s) and play no part.", text, shown)


def _with_usable_masks(annotations: list[dict], where: str) -> list[dict]:
    """As in training, polygons without three points are left out, and annotations that have no other.

    Annotations with an empty list or null are boxes without a mask.
    """
    kept = []
    for annotation in annotations:
        polygons = annotation.get("segmentation")
        if not polygons:
            annotation.pop("segmentation", None)
        elif isinstance(polygons, list) and not all(map(usable, polygons)):
            annotation["segmentation"] = polygons = list(filter(usable, polygons))
            if not polygons:
                continue
        kept.append(annotation)
    if len(kept) < len(annotations):
        logger.warning("%s: %d annotations without a valid polygon are left out.", where, len(annotations) - len(kept))
    return kept


def _complete(annotation: dict, size: tuple[int | None, int | None]) -> None:
    annotation.setdefault("iscrowd", 0)
    segmentation = annotation.get("segmentation")
    if segmentation and ("area" not in annotation or "bbox" not in annotation):
        rle = as_rle(segmentation, size)
        annotation.setdefault("bbox", mask_util.toBbox(rle).tolist())
        annotation.setdefault("area", float(mask_util.area(rle)))
    elif "area" not in annotation:
        annotation["area"] = math.prod(annotation["bbox"][2:])


def _quiet():
    return contextlib.redirect_stdout(io.StringIO())
