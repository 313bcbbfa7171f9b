"""COCO's average precision and recall by class and IoU threshold, and the zero-shot metrics that use them.

One run at the IoU thresholds 0.4 and 0.5, 0.55, ..., 0.95 gives COCO's standard metrics and those of zero-shot instance
segmentation. The numbers are the same as by pycocotools.
"""

import contextlib
import io
import logging
import math
import os
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import pycocotools.mask as mask_util
from pycocotools.coco import COCO

from PADing.data.coco_schema import check_instances, usable
from PADing.errors import UserError
from PADing.evaluation.coco_matching import Outcome, in_order_of_images, match_images, precision_recall
from PADing.evaluation.detections import ImageDetections, as_rle, by_image
from PADing.evaluation.processes import Processes
from PADing.evaluation.results import harmonic_mean, log_class_table, mean
from PADing.files import read_json

logger = logging.getLogger(__name__)

STANDARD_IOU = tuple(np.linspace(0.5, 0.95, 10).tolist())
ZSI_IOU = (0.4, 0.5, 0.6)
DEFAULT_IOU, DEFAULT_MAX_DETS = (ZSI_IOU[0], *STANDARD_IOU), (1, 10, 100)
AREAS = ("all", "small", "medium", "large")


@dataclass(frozen=True)
class CocoMetrics:
    """Average precision and recall as fractions; NaN for classes without ground truth (of that size).

    Attributes:
        iou: T thresholds.
        category_ids: K ids in the annotation, ascending. Class-agnostic metrics have the one id -1.
        precision: (T, K, 4) float64, mean precision at the 101 recall points; last axis: see ``AREAS``.
        recall: (T, K, 4, M) float64, the largest recall; last axis: see ``max_dets``.
        max_dets: M maximal numbers of detections per image. ``precision`` is for the last.
    """

    iou: tuple[float, ...]
    category_ids: tuple[int, ...]
    precision: np.ndarray
    recall: np.ndarray
    max_dets: tuple[int, ...]

    def ap(self, iou: float | None = None, area: str = "all", categories: Collection[int] | None = None) -> float:
        """Mean AP over classes, at one IoU or (None) over 0.5:0.95; NaN if no class has ground truth."""
        return self._mean(self.precision, iou, area, categories)

    def ar(
        self, iou: float | None = None, area: str = "all", categories: Collection[int] | None = None, max_dets: int = -1
    ) -> float:
        """Mean recall; arguments as of :meth:`ap`, and ``max_dets``, an index of ``self.max_dets``."""
        return self._mean(self.recall[..., max_dets], iou, area, categories)

    def _mean(self, values: np.ndarray, iou: float | None, area: str, categories: Collection[int] | None) -> float:
        rows = [int(np.abs(np.subtract(self.iou, t)).argmin()) for t in (STANDARD_IOU if iou is None else (iou,))]
        wanted = None if categories is None else set(categories)
        columns = [k for k, c in enumerate(self.category_ids) if wanted is None or c in wanted]
        return mean(values[np.ix_(rows, columns)][..., AREAS.index(area)].ravel())


def load_ground_truth(source: str | os.PathLike | dict, chosen: Callable[[Sequence], Collection] | None = None) -> COCO:
    """Index an annotation in COCO's instance format (a path, or its content, which is not changed).

    Missing fields (``iscrowd``, ``area``, ``bbox``) are computed. Images without annotation are evaluated, too.
    ``chosen``: gets the ids of all images and returns those to keep; by default all.
    UserError for a missing or malformed file.
    """
    if isinstance(source, dict):
        content = {**source, "annotations": [dict(a) for a in source.get("annotations", ())]}
        where = "the annotation"
    else:
        where = f"Annotation file {os.fspath(source)}"
        content = read_json(source, "Annotation file")
        check_instances(content, where, complete=False)
        content["annotations"] = _with_usable_masks(content["annotations"], where)
    if not {"images", "categories", "annotations"} <= set(content):
        raise UserError(f"{where} is not in COCO's instance format: it needs images, categories and annotations.")
    content.setdefault("info", {})
    images = {image["id"]: image for image in content["images"]}
    kept = images.keys() if chosen is None else set(chosen(list(images)))
    for annotation in content["annotations"]:
        if annotation["image_id"] not in images:
            belongs = f"annotation {annotation.get('id')} belongs to image {annotation['image_id']}"
            raise UserError(f"{where}: {belongs}, which `images` does not list.")
        if annotation["image_id"] in kept:
            _complete(annotation, images[annotation["image_id"]])
    if chosen is not None:
        content["images"] = [image for image in content["images"] if image["id"] in kept]
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
    return truth


def evaluate_detections(
    truth: COCO,
    detections: Iterable[ImageDetections | dict],
    kind: str,
    *,
    iou: Sequence[float] = DEFAULT_IOU,
    category_ids: Collection[int] | None = None,
    max_dets: Sequence[int] = DEFAULT_MAX_DETS,
    class_agnostic: bool = False,
) -> CocoMetrics:
    """Match detections with the ground truth and return precision and recall.

    Args:
        truth: from :func:`load_ground_truth`.
        detections: image by image, or in COCO's result format. Without any, every class with ground truth has AP and
            recall 0.
        kind: "segm" or "bbox"; it also defines the area of a detection.
        iou: thresholds.
        category_ids: classes to evaluate; by default all of the annotation.
        max_dets: maximal numbers of detections per image (and class), ascending.
        class_agnostic: ignore classes, as for proposals.

    Raises:
        UserError: a detection of an image that the annotation does not have, or without the field that ``kind`` needs.
    """
    given = list(detections)
    entries = [item for item in given if isinstance(item, dict)]
    found = [item for item in given if isinstance(item, ImageDetections)]
    if entries:
        found += by_image(entries, image_sizes(truth), "Detections")
    metrics = evaluate_together(
        Processes(False), truth, found, kind,
        iou=iou, category_ids=category_ids, max_dets=max_dets, class_agnostic=class_agnostic,
    )  # fmt: skip
    assert metrics is not None
    return metrics


def evaluate_together(
    processes: Processes,
    truth: COCO,
    found: Sequence[ImageDetections],
    kind: str,
    *,
    iou: Sequence[float] = DEFAULT_IOU,
    category_ids: Collection[int] | None = None,
    max_dets: Sequence[int] = DEFAULT_MAX_DETS,
    class_agnostic: bool = False,
    where: str = "the annotation",
) -> CocoMetrics | None:
    """As :func:`evaluate_detections`, by several processes, each with the annotation and detections of other images.

    ``where`` is what messages call the annotation.
    The metrics, in the main process, are equal to those of one process to the last bit: only scores and flags of the
    detections and counts of objects travel. None in the others.
    """
    if kind not in ("segm", "bbox"):
        raise UserError(f"Detections are evaluated as 'segm' or 'bbox', not {kind!r}.")
    check_images(truth, found, processes, where)
    ids = sorted(set(truth.cats if category_ids is None else category_ids))
    match = partial(match_images, truth, found, kind, iou, ids, max(max_dets), class_agnostic)
    outcome, own_totals, own_lengths = processes.agreed(match)
    columns = processes.arrays([getattr(outcome, f.name) for f in fields(Outcome)])
    totals, lengths = processes.total(own_totals), processes.items(own_lengths, number=50_000)
    if columns is None or totals is None or lengths is None:
        return None
    precision, recall = precision_recall(in_order_of_images(Outcome(*columns), lengths), totals, len(iou), max_dets)
    return CocoMetrics(tuple(iou), (-1,) if class_agnostic else tuple(ids), precision, recall, tuple(max_dets))


def check_images(truth: COCO, found: Sequence[ImageDetections], processes: Processes, where: str) -> None:
    """UserError, in all processes, for detections of an unknown image, and for an image that was predicted twice."""
    ids = [item.image_id for item in found]
    unknown = [image_id for image_id in ids if image_id not in truth.imgs][:1]
    everywhere = processes.all((ids, unknown))
    for _, foreign in everywhere:
        if foreign:
            raise UserError(f"There is a detection for image {foreign[0]}, which {where} does not have.")
    met = set()
    for own, _ in everywhere:
        for image_id in own:
            if image_id in met:
                raise UserError(f"Image {image_id} was predicted twice. Call reset() before you evaluate again.")
            met.add(image_id)


def image_sizes(truth: COCO) -> dict:
    """Image id -> (H, W); None for a size that the annotation does not have."""
    return {key: (image.get("height"), image.get("width")) for key, image in truth.imgs.items()}


def split_metrics(metrics: CocoMetrics, seen: Collection[int], unseen: Collection[int]) -> OrderedDict:
    """Seen mean, unseen mean and harmonic mean, in percent, of AP (IoU 0.5:0.95), AP50 and AR50 (recall at IoU 0.5).

    Args:
        metrics: of all classes.
        seen, unseen: category ids. Classes without ground truth are left out.
    """
    result = OrderedDict()
    for name, function, iou in (("AP", metrics.ap, None), ("AP50", metrics.ap, 0.5), ("AR50", metrics.ar, 0.5)):
        values = [100 * function(iou, categories=ids) for ids in (seen, unseen)]
        result[f"{name}_seen"], result[f"{name}_unseen"] = values
        result[f"{name}_hm"] = harmonic_mean(*values)
    return result


def zsi_metrics(metrics: CocoMetrics) -> OrderedDict:
    """The metrics of zero-shot instance segmentation in percent: ``AP@40 AP@50 AP@60 R100@40 R100@50 R100@60``."""
    result = OrderedDict((f"AP@{round(100 * t)}", 100 * metrics.ap(t)) for t in ZSI_IOU)
    result.update((f"R100@{round(100 * t)}", 100 * metrics.ar(t)) for t in ZSI_IOU)
    return result


def log_per_class(metrics: CocoMetrics, names: Mapping[int, str], title: str) -> None:
    """Log AP (if 0.5:0.95 was evaluated), AP50 and recall at IoU 0.5 of each class; ``names``: by category id."""
    columns = {"AP": (metrics.ap, None), "AP50": (metrics.ap, 0.5), "AR50": (metrics.ar, 0.5)}
    if len(metrics.iou) < len(STANDARD_IOU):
        del columns["AP"]
    rows = [[name, *(100 * f(iou, categories=(i,)) for f, iou in columns.values())] for i, name in names.items()]
    log_class_table(f"{title} per class (* unseen; nan: no ground truth)", rows, ["class", *columns])


def _with_usable_masks(annotations: list[dict], where: str) -> list[dict]:
    """Leave out unusable polygons, and annotations without a usable one; an empty list or null means a box alone."""
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


def _complete(annotation: dict, image: dict) -> None:
    annotation.setdefault("iscrowd", 0)
    if annotation.get("segmentation") and not {"area", "bbox"} <= annotation.keys():
        rle = as_rle(annotation["segmentation"], (image.get("height"), image.get("width")))
        annotation.setdefault("bbox", mask_util.toBbox(rle).tolist())
        annotation.setdefault("area", float(mask_util.area(rle)))
    elif "area" not in annotation:
        annotation["area"] = math.prod(annotation["bbox"][2:])
