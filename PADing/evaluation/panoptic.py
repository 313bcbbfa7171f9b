"""Panoptic quality over all, thing, stuff, seen and unseen classes."""

import os
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog
from detectron2.utils.file_io import PathManager
from panopticapi.utils import id2rgb

from PADing.class_space import ClassSpace
from PADing.data.coco_schema import check_panoptic
from PADing.data.images import empty_segments, present_ids, read_panoptic_ids
from PADing.errors import UserError
from PADing.evaluation.base import ZeroShotEvaluator
from PADing.evaluation.panoptic_quality import VOID, ClassQuality, ImageMatches, match_segments, quality_per_class
from PADing.evaluation.processes import Processes
from PADing.evaluation.results import harmonic_mean, log_class_table, log_table, mean
from PADing.files import json_text, read_json, write_json_texts
from PADing.output_names import output_names

METRICS = ("PQ", "SQ", "RQ")


def read_panoptic_json(metadata: Any) -> dict:
    """The annotation that the metadata's ``panoptic_json`` names; UserError if it is missing or malformed."""
    path = metadata.get("panoptic_json")
    if not path or not PathManager.isfile(path):
        hint = "docs/coco.md and docs/your_data.md say how to make it."
        raise UserError(f"Panoptic annotation {path!r} of data set {metadata.name!r} does not exist. {hint}")
    content = read_json(PathManager.get_local_path(path), f"Panoptic annotation of data set {metadata.name!r}")
    check_panoptic(content, f"Panoptic annotation {path}", complete=False)
    return content


def read_panoptic_png(folder: str, file_name: str, segments: Sequence[dict] = ()) -> np.ndarray:
    """Segment ids (H, W) int32 of a panoptic PNG; UserError if it is unreadable or lacks most of ``segments``."""
    path = os.path.join(folder, file_name)
    ids = read_panoptic_ids(path)
    empty_segments(ids, segments, path)
    return ids


class PanopticzeroEvaluator(ZeroShotEvaluator):
    """Panoptic quality (PQ, SQ, RQ, in percent) of generalized zero-shot segmentation.

    Each image is compared with its annotation as soon as it is processed, and only the classes and IoU of its segments
    are kept. So no intermediate file is needed, and the metrics do not depend on the number of processes.

    ``evaluate`` returns ``{"panoptic_seg": {...}}`` with, for each of PQ, SQ and RQ, the mean over all classes that
    occur (no suffix), over things (``_th``) and stuff (``_st``), and, if the data set has unseen classes, over seen
    (``_se``) and unseen (``_un``) classes and their harmonic mean (``_hm``). As in the published evaluation, a class
    that does not occur at all is a zero in the seen and unseen means; ``exclude_absent`` leaves such classes out.

    Args:
        dataset_name: registered name; its metadata needs ``panoptic_json``, ``panoptic_root`` and the id maps.
        output_dir: folder for ``panoptic_results.json`` (metrics, also per class) and ``predictions.json`` (COCO's
            format); None: write nothing.
        distributed: gather from all processes.
        write_png: also write the predicted maps to ``<output_dir>/panoptic_png``, under the names of the annotation's
            PNGs. COCO's tools need them with ``predictions.json``.
        exclude_absent: see above.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | None = None,
        *,
        distributed: bool = True,
        write_png: bool = False,
        exclude_absent: bool = False,
    ):
        super().__init__(dataset_name, "panoptic", distributed, output_dir)
        self._write_png = write_png and output_dir is not None
        self._exclude_absent = exclude_absent
        truth = read_panoptic_json(self.metadata)
        self._truth = {str(item["image_id"]): item for item in truth["annotations"]}
        self._names = output_names(item["file_name"] for item in truth["annotations"])
        self.classes = _as_annotated(self.classes, truth["categories"])
        self._contiguous = self.classes.contiguous_ids

    def process_image(self, record: dict, prediction: tuple[Any, list[dict] | None]) -> None:
        """Compare an image with its annotation.

        Args:
            record: dataset dict with ``image_id`` and ``file_name``.
            prediction: the (H, W) integer map of segment ids (0: none) and the list of segments ``{id, category_id,
                isthing}`` with contiguous category ids. If the list is None, the map has ``category * label_divisor +
                instance``, and -1 for none.
        """
        segment_map, segments = prediction
        segment_map = segment_map.cpu().numpy() if hasattr(segment_map, "cpu") else np.asarray(segment_map)
        if segments is None:
            segment_map, segments = self._decode(segment_map)
        key = str(record["image_id"])
        truth = self._truth.get(key)
        if truth is None:
            raise UserError(
                f"Image {key} ({record.get('file_name')}) has no entry in {self.metadata.panoptic_json}. Check that "
                "the data set and its annotation belong together."
            )
        written = None
        matches = self._match(record, truth, segment_map, segments)
        if self.output_dir:
            name = self._names[truth["file_name"]]
            written = json_text(self._prediction(record["image_id"], name, segment_map, segments))  # smaller than dicts
        self.items.append((key, matches, written))

    def _match(self, record: dict, truth: dict, segment_map: np.ndarray, segments: list[dict]) -> ImageMatches:
        unlisted = present_ids(segment_map) - {VOID, *(s["id"] for s in segments)}
        if unlisted:
            raise UserError(
                f"The panoptic prediction for image {record['image_id']} has the segment ids "
                f"{sorted(unlisted)[:5]} in its map but not in its segment list."
            )
        # Segments of classes that the split does not have become void.
        listed = [s for s in truth["segments_info"] if s["category_id"] in self._contiguous]
        for segment in segments:
            self.classes.dataset_id(segment["category_id"])  # refuses a class that the data set does not have
        true_map = read_panoptic_png(self.metadata.panoptic_root, truth["file_name"], truth["segments_info"])
        try:
            return match_segments(
                true_map,
                {s["id"]: self._contiguous[s["category_id"]] for s in listed},
                [s["id"] for s in listed if s.get("iscrowd", 0)],
                segment_map,
                {s["id"]: int(s["category_id"]) for s in segments},
            )
        except ValueError as error:
            raise UserError(f"Image {record['image_id']} ({record.get('file_name')}): {error}.") from error

    def _decode(self, segment_map: np.ndarray) -> tuple[np.ndarray, list[dict]]:
        divisor = self.metadata.label_divisor
        labels = [label for label in np.unique(segment_map).tolist() if label != -1]
        segments = [
            {"id": label + 1, "category_id": label // divisor, "isthing": label // divisor in self.classes.things}
            for label in labels
        ]
        return segment_map + 1, segments  # 0 is void

    def _prediction(self, image_id, name: str, segment_map: np.ndarray, segments: list[dict]) -> dict:
        if self._write_png:
            self.save_png(id2rgb(segment_map), "panoptic_png", name)
        listed = [
            {"id": int(s["id"]), "category_id": self.classes.dataset_id(label), "isthing": label in self.classes.things}
            for s in segments
            for label in [s["category_id"]]
        ]
        return {"image_id": image_id, "file_name": name, "segments_info": listed}

    def score(self, processes: Processes) -> dict | None:
        """``{"panoptic_seg": metrics}`` in the main process; UserError if an image of the annotation has no prediction.

        IoU, classes and the line of the results file travel, so the main process sums as one process would.
        """
        items = processes.items(self.items)
        return processes.on_main(lambda: self._results({key: rest for key, *rest in items or ()}))

    def _results(self, images: Mapping[str, Any]) -> dict:
        missing = self._truth.keys() - images.keys() - self.left_out
        if missing and self.classes.data_set in DatasetCatalog.list():
            # A training set may leave out images of its annotation that show unseen classes.
            missing &= {str(record["image_id"]) for record in DatasetCatalog.get(self.classes.data_set)}
        if missing:
            raise UserError(
                f"{len(missing)} of the {len(self._truth)} images of {self.classes.data_set!r} got no prediction (the "
                f"first: {', '.join(sorted(missing)[:5])}). Panoptic quality is defined over all images."
            )
        # In the annotation's order, so that sums do not depend on the number of processes.
        ordered = [images[key] for key in self._truth if key in images]
        quality = quality_per_class((matches for matches, _ in ordered), sorted(self.classes.names))
        result, rows = self._summary(quality)
        log_table(f"Panoptic quality on {self.classes.data_set}", rows, ["", *METRICS, "#categories"])
        results = OrderedDict({"panoptic_seg": result})
        present = [i for i, q in quality.items() if q.present]
        values = {metric: partial(_mean_quality, quality, metric) for metric in METRICS}
        results.update(self.by_training("panoptic_seg", values, present))
        shown = [[self.starred(i), *q.percent().values()] for i, q in quality.items() if q.present]
        log_class_table("Per class (* unseen; classes that do not occur are left out)", shown, ["class", *METRICS])
        if self.output_dir:
            per_class = self.per_class(
                {"isthing": i in self.classes.things, "present": q.present, **q.percent()} for i, q in quality.items()
            )
            self.write_results("panoptic_results.json", {**results, "per_class": per_class})
            texts = (text for _, text in ordered)
            write_json_texts(self.path("predictions.json"), texts, b'{"annotations": [', b", ", b"]}")
        return results

    def _summary(self, quality: dict[int, ClassQuality]) -> tuple[dict[str, float], list]:
        classes = self.classes
        present = {label for label, value in quality.items() if value.present}
        things, stuff = present & classes.things, present - classes.things
        groups = [("All", "", present), ("Things", "_th", things), ("Stuff", "_st", stuff)]
        if classes.unseen:
            kept = present if self._exclude_absent else set(quality)
            groups += [("Seen", "_se", kept & classes.seen), ("Unseen", "_un", kept & classes.unseen)]
        result: dict[str, float] = OrderedDict()
        rows: list[list] = []
        for title, suffix, members in groups:
            values = [100 * mean(getattr(quality[i], m.lower()) for i in sorted(members)) for m in METRICS]
            result.update((m + suffix, value) for m, value in zip(METRICS, values, strict=True))
            rows.append([title, *values, len(members)])
        if classes.unseen:
            values = [harmonic_mean(result[m + "_se"], result[m + "_un"]) for m in METRICS]
            result.update((m + "_hm", value) for m, value in zip(METRICS, values, strict=True))
            rows.append(["Harmonic mean", *values, ""])
        return result, rows


def _mean_quality(quality: Mapping[int, ClassQuality], metric: str, members: Collection[int]) -> float:
    """Mean of PQ, SQ or RQ, in percent, over those of some classes that occur."""
    return 100 * mean(getattr(quality[i], metric.lower()) for i in sorted(members) if quality[i].present)


def _as_annotated(classes: ClassSpace, categories: list[dict]) -> ClassSpace:
    """The classes with names and things as in the annotation's categories; UserError if it lacks some."""
    by_dataset_id = {category["id"]: category for category in categories}
    missing = sorted(set(classes.dataset_ids.values()) - set(by_dataset_id))
    if missing:
        raise UserError(
            f"The panoptic annotation of {classes.data_set!r} lacks the categories with the ids {missing[:10]}, which "
            "the data set's split names. Check `panoptic_json` and the category ids of the split file."
        )
    own = {i: by_dataset_id[dataset_id] for i, dataset_id in sorted(classes.dataset_ids.items())}
    things = frozenset(i for i, category in own.items() if category.get("isthing", i in classes.things))
    return replace(classes, names={i: category["name"] for i, category in own.items()}, things=things)
