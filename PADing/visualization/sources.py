"""Segmentations from what models return and from what data sets annotate, ready to be painted."""

from collections.abc import Iterable, Mapping

import numpy as np
from detectron2.structures import BitMasks, Instances, polygons_to_bitmask
from panopticapi.utils import rgb2id
from pycocotools import mask as coco_mask
from torch import Tensor

from PADing.data.images import read_labels, read_panoptic_rgb
from PADing.visualization.panoptic import Segmentation

__all__ = ["classes_in_record", "confident", "from_detections", "from_output", "from_record"]

# Without a threshold, an instance is shown from this share of the picture's best score on. What a high score is depends
# on the method: D2Zero's softmax is so flat that its best ones lie near 0.4, Mask2Former's reach 1.
SHARE_OF_BEST, LOWEST_SCORE = 0.5, 0.1
# One object often has several answers with the same mask and other classes: the best of them is shown.
SAME_OBJECT_IOU = 0.75


def from_output(output: Mapping, ignore_label: int = 255, score_threshold: float | None = None) -> Segmentation:
    """The most complete segmentation in a model's output for one image: panoptic, else instances, else semantic.

    Args:
        output: a Detectron2 output with ``panoptic_seg``, ``instances`` or ``sem_seg``.
        score_threshold: which instances are shown, see :func:`confident`; better ones lie on top.
    """
    if "panoptic_seg" in output:
        ids, segments = output["panoptic_seg"]
        return Segmentation(ids.cpu().numpy(), {s["id"]: s["category_id"] for s in segments})
    if "instances" in output:
        instances = confident(output["instances"], score_threshold)
        return _stack(instances.pred_masks.numpy(), instances.pred_classes.tolist(), instances.image_size)
    return _from_labels(output["sem_seg"].argmax(dim=0).cpu().numpy(), ignore_label)


def from_detections(
    detections: Iterable[Mapping],
    contiguous_id: Mapping[int, int],
    size: tuple[int, int],
    score_threshold: float | None = None,
) -> Segmentation:
    """The detections of one image in COCO's result format.

    Args:
        detections: dicts with ``category_id``, ``score``, ``segmentation`` (RLE or polygons).
        contiguous_id: of each ``category_id``; detections of other categories are left out.
        size: (H, W) of the image.
        score_threshold: which are shown, as in :func:`confident`; better ones lie on top.
    """
    known = [d for d in detections if d["category_id"] in contiguous_id]
    least = _least_score([d["score"] for d in known], score_threshold)
    shown = [d for d in known if d["score"] >= least]
    shown.sort(key=lambda d: d["score"])
    masks = [_mask(d["segmentation"], size) for d in shown]
    return _stack(masks, [contiguous_id[d["category_id"]] for d in shown], size)


def from_record(record: Mapping, ignore_label: int = 255) -> Segmentation:
    """The annotation of one data set record (a Detectron2 dataset dict), read from its files."""
    if "pan_seg_file_name" in record:
        ids = rgb2id(read_panoptic_rgb(record["pan_seg_file_name"]))
        return Segmentation(ids, {s["id"]: s["category_id"] for s in record["segments_info"]})
    if "annotations" in record:
        size = (record["height"], record["width"])
        objects = [a for a in record["annotations"] if a.get("segmentation")]
        masks = [(_mask(a["segmentation"], size), a["category_id"]) for a in objects]
        # Large objects first, so that small ones stay visible.
        masks.sort(key=lambda item: -item[0].sum())
        return _stack([m for m, _ in masks], [c for _, c in masks], size)
    return _from_labels(read_labels(record["sem_seg_file_name"]), ignore_label)


def classes_in_record(record: Mapping, ignore_label: int = 255) -> set[int]:
    """Contiguous ids of the classes that a record's annotation shows; only semantic annotation needs its file."""
    for key in ("segments_info", "annotations"):
        if key in record:
            return {part["category_id"] for part in record[key]}
    return set(np.unique(read_labels(record["sem_seg_file_name"])).tolist()) - {ignore_label}


def confident(instances: Instances, score_threshold: float | None = None) -> Instances:
    """The instances to show: on the CPU, not empty, each object once, best last.

    ``pred_masks`` become bool and ``pred_boxes`` tight boxes around them, because Mask2Former's are zeros.

    Args:
        score_threshold: the least score to show. None: half of the best score in the picture, but at least 0.1.
    """
    instances = instances.to("cpu")
    masks, scores = instances.pred_masks > 0.5, instances.scores
    candidates = masks.flatten(1).any(1)
    candidates &= scores >= _least_score(scores[candidates].tolist(), score_threshold)
    order: list[int] = []
    for index in scores.argsort(descending=True).tolist():
        if candidates[index] and not any(_iou(masks[index], masks[better]) > SAME_OBJECT_IOU for better in order):
            order.append(index)
    order.reverse()
    shown = Instances(instances.image_size)
    shown.pred_masks = masks[order]
    shown.pred_boxes = BitMasks(shown.pred_masks).get_bounding_boxes()
    shown.scores, shown.pred_classes = scores[order], instances.pred_classes[order]
    return shown


def _least_score(scores: list[float], threshold: float | None) -> float:
    return max(LOWEST_SCORE, SHARE_OF_BEST * max(scores, default=0.0)) if threshold is None else threshold


def _iou(a: Tensor, b: Tensor) -> float:
    return ((a & b).sum() / (a | b).sum()).item()


def _mask(segmentation, size: tuple[int, int]) -> np.ndarray:
    if isinstance(segmentation, list):
        return polygons_to_bitmask(segmentation, *size)
    if isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, *size)
    return coco_mask.decode(segmentation).astype(bool)


def _stack(masks, classes, size: tuple[int, int]) -> Segmentation:
    ids = np.zeros(size, dtype=np.int64)
    for number, mask in enumerate(masks, start=1):
        ids[mask] = number
    return Segmentation(ids, dict(enumerate(classes, start=1)))


def _from_labels(labels: np.ndarray, ignore_label: int) -> Segmentation:
    ids = labels.astype(np.int64) + 1
    ids[labels == ignore_label] = 0
    return Segmentation(ids, {int(i): int(i) - 1 for i in np.unique(ids) if i})
