"""Panoptic quality of predictions in COCO's panoptic format: one JSON, and for each image a PNG of segment ids."""

import json
import logging
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from panopticapi.utils import rgb2id
from PIL import Image

VOID = 0  # the id of pixels without a label
OFFSET = 256**3  # more than any id that a PNG can hold


@dataclass
class PQStatCat:
    """The counts of one category: sum of IoU, true positives, false positives, false negatives."""

    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __iadd__(self, other: "PQStatCat") -> "PQStatCat":
        for count, more in vars(other).items():
            setattr(self, count, getattr(self, count) + more)
        return self

    def _quality(self) -> dict[str, float]:
        denominator = self.tp + (self.fp + self.fn) / 2
        return {
            "pq": self.iou / denominator if denominator else 0.0,
            "sq": self.iou / self.tp if self.tp else 0.0,
            "rq": self.tp / denominator if denominator else 0.0,
        }


class PQStat:
    """The counts of each category, ``stat[category_id]``; the counts of images can be added."""

    def __init__(self) -> None:
        self.pq_per_cat: dict[int, PQStatCat] = defaultdict(PQStatCat)

    def __getitem__(self, category_id: int) -> PQStatCat:
        return self.pq_per_cat[category_id]

    def __iadd__(self, other: "PQStat") -> "PQStat":
        for category_id in other.pq_per_cat:
            self.pq_per_cat[category_id] += other[category_id]
        return self

    def pq_average(self, categories: dict[int, dict], isthing: bool | None) -> tuple[dict, dict]:
        """The mean ``pq sq rq`` over the ``n`` categories of which anything was counted, and those of each category.

        ``categories`` are entries of the JSON, by id; True takes things alone, False stuff alone, None all.
        """
        chosen = [key for key, entry in categories.items() if isthing is None or (entry["isthing"] == 1) == isthing]
        per_class = {key: self[key]._quality() for key in chosen}
        counted = [per_class[key] for key in chosen if self[key] != PQStatCat()]
        number = len(counted)
        mean = {metric: sum(quality[metric] for quality in counted) / max(number, 1) for metric in ("pq", "sq", "rq")}
        return {**mean, "n": number}, per_class


def pq_compute(gt_json_file: str, pred_json_file: str, gt_folder: str | None = None, pred_folder: str | None = None):
    """Compare predictions with an annotation: ``All``, ``Things``, ``Stuff``, see ``pq_average``, and ``per_class``.

    By default a JSON's PNGs are in the folder beside it that has its name without ".json".
    """
    truth, predictions = (json.loads(Path(path).read_text("utf-8")) for path in (gt_json_file, pred_json_file))
    categories = {entry["id"]: entry for entry in truth["categories"]}
    prediction_of = {entry["image_id"]: entry for entry in predictions["annotations"]}
    true_folder = _png_folder(gt_json_file, gt_folder)
    predicted_folder = _png_folder(pred_json_file, pred_folder)
    stat = PQStat()
    for annotation in truth["annotations"]:
        prediction = prediction_of.get(annotation["image_id"])
        if prediction is None:
            raise Exception(f"{pred_json_file} has no prediction for the image with id: {annotation['image_id']}")
        true_map = _segment_ids(true_folder / annotation["file_name"])
        predicted_map = _segment_ids(predicted_folder / prediction["file_name"])
        _check(prediction, predicted_map, categories)
        stat += _count(annotation["segments_info"], true_map, prediction["segments_info"], predicted_map)
    number = len(truth["annotations"])
    logging.getLogger(__name__).info("Panoptic quality: %d images of %s are counted.", number, gt_json_file)
    groups = {"All": None, "Things": True, "Stuff": False}
    means = {group: stat.pq_average(categories, kind)[0] for group, kind in groups.items()}
    return means | {"per_class": stat.pq_average(categories, None)[1]}


def _png_folder(json_file: str, folder: str | None) -> Path:
    path = Path(folder or str(json_file).removesuffix(".json"))
    if not path.is_dir():
        raise Exception(f"There is no folder {path} with the PNGs of {json_file}.")
    return path


def _segment_ids(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        if image.mode not in ("RGB", "RGBA"):
            raise ValueError(f"{path} has no red, green and blue to read ids from: its mode is {image.mode}.")
        return rgb2id(np.array(image))


def _check(prediction: dict, ids: np.ndarray, categories: dict[int, dict]) -> None:
    where = f"The prediction for image {prediction['image_id']}"
    drawn, listed = set(np.unique(ids).tolist()) - {VOID}, {entry["id"] for entry in prediction["segments_info"]}
    if drawn - listed:
        raise KeyError(f"{where} has the ids {sorted(drawn - listed)} in its PNG, which its JSON does not list.")
    if listed - drawn:
        raise KeyError(f"{where} lists the ids {sorted(listed - drawn)} in its JSON, which its PNG does not show.")
    unknown = {entry["category_id"] for entry in prediction["segments_info"]} - set(categories)
    if unknown:
        raise KeyError(f"{where} has the categories {sorted(unknown)}, which the annotation does not know.")


def _count(truth: list[dict], true_map: np.ndarray, predicted: list[dict], predicted_map: np.ndarray) -> PQStat:
    """The counts of one image, from the listed segments and maps of ids (H, W)."""
    pairs, counts = np.unique(true_map.astype(np.int64) * OFFSET + predicted_map, return_counts=True)
    # (true id, predicted id) -> pixels that they share; predicted id -> its pixels
    shared = Counter(dict(zip(map(lambda pair: divmod(pair, OFFSET), pairs.tolist()), counts.tolist(), strict=True)))
    area: Counter[int] = Counter()
    partners: dict[int, list[int]] = defaultdict(list)
    for (true, other), pixels in shared.items():
        area[other] += pixels
        partners[true].append(other)
    # As in COCO's own tool, only the last crowd region of a category is used.
    crowd = {entry["category_id"]: entry["id"] for entry in truth if entry["iscrowd"] == 1}
    stat, unmatched = PQStat(), {entry["id"]: entry["category_id"] for entry in predicted}
    for entry in (entry for entry in truth if entry["iscrowd"] != 1):
        match, best = None, 0.0
        for candidate in partners[entry["id"]]:
            if unmatched.get(candidate) == entry["category_id"]:
                pixels = shared[entry["id"], candidate]
                iou = pixels / (entry["area"] + area[candidate] - pixels - shared[VOID, candidate])
                match, best = (candidate, iou) if iou > 0.5 else (match, best)
        counts_of = stat[entry["category_id"]]
        counts_of += PQStatCat(fn=1) if match is None else PQStatCat(best, tp=1)
        unmatched.pop(match, None)
    for number, category in unmatched.items():
        excused = shared[VOID, number] + (shared[crowd[category], number] if category in crowd else 0)
        stat[category].fp += excused <= area[number] / 2
    return stat
