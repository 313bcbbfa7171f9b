"""Panoptic quality of PNG label maps and their JSON, in COCO's panoptic format."""

import json
import logging
import os
import time
from collections import defaultdict

import numpy as np
from panopticapi.utils import rgb2id
from PIL import Image

__all__ = ["OFFSET", "VOID", "PQStat", "PQStatCat", "pq_compute", "pq_compute_single_image"]

logger = logging.getLogger(__name__)

OFFSET = 256 * 256 * 256
VOID = 0


class PQStatCat:
    """Counts of one category: summed IoU of matched segments, true positives, false positives, false negatives."""

    def __init__(self):
        self.iou = 0.0
        self.tp = 0
        self.fp = 0
        self.fn = 0

    def __iadd__(self, other: "PQStatCat") -> "PQStatCat":
        self.iou += other.iou
        self.tp += other.tp
        self.fp += other.fp
        self.fn += other.fn
        return self


class PQStat:
    """Counts of all categories, which can be added up over images."""

    def __init__(self):
        self.pq_per_cat = defaultdict(PQStatCat)

    def __getitem__(self, category_id) -> PQStatCat:
        return self.pq_per_cat[category_id]

    def __iadd__(self, other: "PQStat") -> "PQStat":
        for category_id, counts in other.pq_per_cat.items():
            self.pq_per_cat[category_id] += counts
        return self

    def pq_average(self, categories: dict, isthing: bool | None) -> tuple[dict, dict]:
        """Average over the categories that occur.

        Args:
            categories: category dicts by id.
            isthing: True: things only; False: stuff only; None: both.

        Returns:
            ``{pq, sq, rq, n}`` as fractions, with n the number of categories that occur (all 0 when there is none), and
            ``{category id: {pq, sq, rq}}`` with zeros for those that do not.
        """
        sums, n, per_class = np.zeros(3), 0, {}
        for category_id, category in categories.items():
            if isthing is not None and isthing != (category["isthing"] == 1):
                continue
            counts = self.pq_per_cat[category_id]
            weight = counts.tp + 0.5 * counts.fp + 0.5 * counts.fn
            if weight == 0:
                per_class[category_id] = {"pq": 0.0, "sq": 0.0, "rq": 0.0}
                continue
            values = counts.iou / weight, counts.iou / counts.tp if counts.tp else 0.0, counts.tp / weight
            per_class[category_id] = dict(zip(("pq", "sq", "rq"), values, strict=True))
            sums += values
            n += 1
        pq, sq, rq = (sums / max(n, 1)).tolist()
        return {"pq": pq, "sq": sq, "rq": rq, "n": n}, per_class


def pq_compute_single_image(gt_ann: dict, gt_map: np.ndarray, pred_ann: dict, pred_map: np.ndarray, categories: dict):
    """Counts of one image. Annotations are entries of the JSON, maps are (H, W) ids.

    Raises:
        KeyError: predicted ids that are only in the map or only in the JSON, or with an unknown category.
    """
    stat = PQStat()
    image = gt_ann["image_id"]
    gt_segments = {s["id"]: s for s in gt_ann["segments_info"]}
    pred_segments = {s["id"]: s for s in pred_ann["segments_info"]}
    pred_area = dict(zip(*(a.tolist() for a in np.unique(pred_map, return_counts=True)), strict=True))
    gt_area = dict(zip(*(a.tolist() for a in np.unique(gt_map, return_counts=True)), strict=True))

    only_map = set(pred_area) - {VOID} - set(pred_segments)
    if only_map:
        raise KeyError(f"Prediction for image {image}: the ids {sorted(only_map)} are in the PNG, not in the JSON.")
    only_json = set(pred_segments) - set(pred_area)
    if only_json:
        raise KeyError(f"Prediction for image {image}: the ids {sorted(only_json)} are in the JSON, not in the PNG.")
    for segment in pred_segments.values():
        if segment["category_id"] not in categories:
            raise KeyError(f"Prediction for image {image}: category {segment['category_id']} is unknown.")

    pair = gt_map.astype(np.uint64) * OFFSET + pred_map.astype(np.uint64)
    pairs, counts = np.unique(pair, return_counts=True)
    overlap = {(p // OFFSET, p % OFFSET): n for p, n in zip(pairs.tolist(), counts.tolist(), strict=True)}

    gt_matched, pred_matched = set(), set()
    for (gt_id, pred_id), intersection in overlap.items():
        if gt_id not in gt_segments or pred_id not in pred_segments:
            continue
        truth, prediction = gt_segments[gt_id], pred_segments[pred_id]
        if truth.get("iscrowd") == 1 or truth["category_id"] != prediction["category_id"]:
            continue
        union = truth.get("area", gt_area[gt_id]) + pred_area[pred_id] - intersection - overlap.get((VOID, pred_id), 0)
        iou = intersection / union
        if iou > 0.5:
            stat[truth["category_id"]].tp += 1
            stat[truth["category_id"]].iou += iou
            gt_matched.add(gt_id)
            pred_matched.add(pred_id)

    crowds = defaultdict(list)
    for gt_id, truth in gt_segments.items():
        if truth.get("iscrowd") == 1:
            crowds[truth["category_id"]].append(gt_id)
        elif gt_id not in gt_matched:
            stat[truth["category_id"]].fn += 1

    for pred_id, prediction in pred_segments.items():
        if pred_id in pred_matched:
            continue
        excused = overlap.get((VOID, pred_id), 0)
        excused += sum(overlap.get((crowd, pred_id), 0) for crowd in crowds[prediction["category_id"]])
        if excused / pred_area[pred_id] <= 0.5:
            stat[prediction["category_id"]].fp += 1
    return stat


def pq_compute(gt_json_file, pred_json_file, gt_folder=None, pred_folder=None) -> dict:
    """Panoptic quality of predictions in COCO's format.

    Args:
        gt_json_file, pred_json_file: annotation and prediction JSON.
        gt_folder, pred_folder: folders of their PNGs; by default the JSON's path without ``.json``.

    Returns:
        ``All``, ``Things``, ``Stuff`` (each ``pq, sq, rq, n``) and ``per_class`` (``pq, sq, rq`` by category id).

    Raises:
        Exception: an image of the annotation has no prediction.
    """
    start = time.time()
    with open(gt_json_file) as file:
        gt_json = json.load(file)
    with open(pred_json_file) as file:
        pred_json = json.load(file)
    gt_folder = gt_folder or gt_json_file.replace(".json", "")
    pred_folder = pred_folder or pred_json_file.replace(".json", "")
    for folder in (gt_folder, pred_folder):
        if not os.path.isdir(folder):
            raise Exception(f"Folder {folder} with PNG label maps doesn't exist")
    categories = {category["id"]: category for category in gt_json["categories"]}
    predictions = {annotation["image_id"]: annotation for annotation in pred_json["annotations"]}

    stat = PQStat()
    for gt_ann in gt_json["annotations"]:
        if gt_ann["image_id"] not in predictions:
            raise Exception(f"no prediction for the image with id: {gt_ann['image_id']}")
        pred_ann = predictions[gt_ann["image_id"]]
        gt_map = _read_png(os.path.join(gt_folder, gt_ann["file_name"]))
        pred_map = _read_png(os.path.join(pred_folder, pred_ann["file_name"]))
        stat += pq_compute_single_image(gt_ann, gt_map, pred_ann, pred_map, categories)

    results = {}
    for name, isthing in (("All", None), ("Things", True), ("Stuff", False)):
        results[name], per_class = stat.pq_average(categories, isthing=isthing)
        if name == "All":
            results["per_class"] = per_class
    logger.info("Panoptic quality of %d images in %.1f s", len(gt_json["annotations"]), time.time() - start)
    return results


def _read_png(path: str) -> np.ndarray:
    return rgb2id(np.array(Image.open(path), dtype=np.uint32))
