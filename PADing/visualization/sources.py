"""Makes segmentations for drawing from model outputs, result files, annotations and training examples."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from detectron2.structures import Instances, PolygonMasks, polygons_to_bitmask
from pycocotools import mask as coco_mask

from PADing.data.images import read_labels, read_panoptic_ids
from PADing.visualization.panoptic import Segmentation

# Without a threshold, instances with at least this share of the image's best score are shown. High scores differ by
# method: D2Zero's best scores are near 0.4, those of Mask2Former near 1.
SHARE_OF_BEST, LOWEST_SCORE = 0.5, 0.1
# One object often has several predictions with nearly the same mask: only the best one is shown.
SAME_OBJECT_IOU = 0.75


def from_output(output: Mapping, ignore_label: int = 255, score_threshold: float | None = None) -> Segmentation:
    """The most complete segmentation in a model's output for one image: panoptic, else instances, else semantic.

    ``score_threshold`` is the least score of an instance to show. None: half of the best score in the image, but at
    least 0.1. Each object is shown once, with its best class. Instances with better scores are on top.
    """
    if "panoptic_seg" in output:
        ids, segments = output["panoptic_seg"]
        stuff = {s["id"] for s in segments if not s.get("isthing", True)}
        classes = {s["id"]: s["category_id"] for s in segments}
        return Segmentation(ids.cpu().numpy(), classes, stuff=stuff, complete=True)
    if "instances" in output:
        return _from_instances(output["instances"], score_threshold)
    return _from_labels(output["sem_seg"].argmax(dim=0).cpu().numpy(), ignore_label)


def _from_instances(instances: Instances, score_threshold: float | None) -> Segmentation:
    scores, classes = instances.scores.tolist(), instances.pred_classes.tolist()
    shown: list[tuple[int, dict]] = []  # numbers and masks, best first
    numbers = [index for index, score in enumerate(scores) if not math.isnan(score)]
    for index in sorted(numbers, key=lambda i: -scores[i]):
        if score_threshold is not None and scores[index] < score_threshold:
            break
        # One mask at a time, kept as RLE: 100 masks of a large photograph take gigabytes.
        mask = (instances.pred_masks[index] > 0.5).cpu().numpy()
        if not mask.any():
            continue
        if score_threshold is None:
            score_threshold = _least_score([scores[index]], None)  # of the best that shows anything
            if scores[index] < score_threshold:
                break
        rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        if shown and coco_mask.iou([rle], [other for _, other in shown], [0] * len(shown)).max() > SAME_OBJECT_IOU:
            continue
        shown.append((index, rle))
    shown.reverse()
    masks = (coco_mask.decode(rle).astype(bool) for _, rle in shown)
    order = [index for index, _ in shown]
    return _stack(masks, [classes[i] for i in order], instances.image_size, [scores[i] for i in order])


def from_detections(
    detections: Iterable[Mapping],
    contiguous_id: Mapping[int, int],
    size: tuple[int, int],
    score_threshold: float | None = None,
) -> Segmentation:
    """The detections of one image of ``size`` (H, W) in COCO's result format.

    Those whose ``category_id`` has no contiguous id are left out. ``score_threshold`` is the least score to show, as in
    :func:`from_output`. Detections with better scores are on top.
    """
    known = [d for d in detections if d["category_id"] in contiguous_id]
    least = _least_score([d["score"] for d in known], score_threshold)
    shown = [d for d in known if d["score"] >= least]
    shown.sort(key=lambda d: d["score"])
    masks = (_mask(d["segmentation"], size) for d in shown)
    classes = [contiguous_id[d["category_id"]] for d in shown]
    return _stack(masks, classes, size, [d["score"] for d in shown])


def from_record(record: Mapping, ignore_label: int = 255) -> Segmentation:
    """The annotation of one data set record (a Detectron2 dataset dict), read from its files."""
    if "pan_seg_file_name" in record:
        ids = read_panoptic_ids(record["pan_seg_file_name"])
        stuff = {s["id"] for s in record["segments_info"] if not s.get("isthing", True)}
        classes = {s["id"]: s["category_id"] for s in record["segments_info"]}
        return Segmentation(ids, classes, stuff=stuff, complete=True)
    if "annotations" in record:
        size = (record["height"], record["width"])
        objects = [a for a in record["annotations"] if a.get("segmentation")]
        return _small_on_top([(_mask(a["segmentation"], size), a["category_id"]) for a in objects], size)
    return _from_labels(read_labels(record["sem_seg_file_name"]), ignore_label)


def classes_in_record(record: Mapping, ignore_label: int = 255) -> set[int]:
    """Contiguous ids of the classes in a record's annotation. Files are read for semantic annotation only."""
    for key in ("segments_info", "annotations"):
        if key in record:
            return {part["category_id"] for part in record[key]}
    return set(np.unique(read_labels(record["sem_seg_file_name"])).tolist()) - {ignore_label}


def from_sample(sample: Mapping, ignore_label: int = 255) -> Segmentation:
    """The targets of a training example: ``instances`` with ``gt_classes`` and ``gt_masks``, or ``sem_seg`` (H, W)."""
    if "instances" not in sample:
        return _from_labels(sample["sem_seg"].cpu().numpy(), ignore_label)
    instances = sample["instances"]
    masks, size = instances.gt_masks, tuple(sample["image"].shape[-2:])
    if isinstance(masks, PolygonMasks):
        masks = [polygons_to_bitmask(polygons, *size) for polygons in masks.polygons]
    else:
        masks = getattr(masks, "tensor", masks).cpu().numpy().astype(bool)
    labels = instances.gt_classes.tolist()
    return _small_on_top([(mask, label) for mask, label in zip(masks, labels, strict=True) if mask.any()], size)


def _small_on_top(objects: list[tuple[np.ndarray, int]], size: tuple[int, int]) -> Segmentation:
    """Masks and classes, small ones on top so that they stay visible."""
    objects = sorted(objects, key=lambda item: -item[0].sum())
    return _stack([mask for mask, _ in objects], [label for _, label in objects], size)


def _least_score(scores: list[float], threshold: float | None) -> float:
    return max(LOWEST_SCORE, SHARE_OF_BEST * max(scores, default=0.0)) if threshold is None else threshold


def _mask(segmentation, size: tuple[int, int]) -> np.ndarray:
    if isinstance(segmentation, list):
        return polygons_to_bitmask(segmentation, *size)
    if isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, *size)
    return coco_mask.decode(segmentation).astype(bool)


def _stack(
    masks: Iterable[np.ndarray], classes: Sequence[int], size: tuple[int, int], scores: Sequence[float] = ()
) -> Segmentation:
    """Masks on top of each other, the last one on top."""
    ids = np.zeros(size, dtype=np.int32)
    for number, mask in enumerate(masks, start=1):
        ids[mask] = number
    return Segmentation(ids, dict(enumerate(classes, start=1)), dict(enumerate(scores, start=1)))


def _from_labels(labels: np.ndarray, ignore_label: int) -> Segmentation:
    ids = labels.astype(np.int32)
    ids += 1
    ids[labels == ignore_label] = 0
    present = np.unique(np.concatenate([np.unique(row) for row in ids]))  # row by row: a sorted copy is small
    return Segmentation(ids, {int(i): int(i) - 1 for i in present if i}, complete=True)
