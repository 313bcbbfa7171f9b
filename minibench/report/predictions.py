"""Reads and rates what a run predicted on the validation images that show an unseen class."""

import logging
import statistics
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from pycocotools import mask as coco_mask

from minibench.bench import Bench
from minibench.methods import INSTANCE, Method
from minibench.report.document import Section, Text
from minibench.runs import Run
from PADing.data.loaders import load_data_set
from PADing.data.splits import DataSet, Split, load_split, shipped_split_files
from PADing.errors import UserError
from PADing.evaluation.detections import as_rle
from PADing.evaluation.panoptic import read_panoptic_png
from PADing.evaluation.panoptic_quality import match_segments, quality_per_class
from PADing.files import read_json
from PADing.visualization import Segmentation, from_detections, from_record
from PADing.visualization.comparison import read_detections
from PADing.visualization.sources import classes_in_record
from PADing.yaml_files import read_yaml

logger = logging.getLogger(__name__)
T = TypeVar("T")
# A ground-truth segment is found if a predicted segment of any class has a greater IoU with it.
FOUND = 0.5
# Share of a detection that must be visible. One object often has several overlapping detections.
VISIBLE = 0.5
# Contiguous id of the class, and compressed RLE.
Mask = tuple[int, dict]


@dataclass(frozen=True)
class Validation:
    """The first evaluation set of a run, with its paths relative to ``root`` (``$DETECTRON2_DATASETS``).

    Attributes:
        names: class names by contiguous id. unseen: ids of unseen classes. contiguous: dataset id -> contiguous id.
    """

    split: Split
    data_set: DataSet
    root: str
    names: list[str]
    unseen: frozenset[int]
    contiguous: dict[int, int]

    @cached_property
    def records(self) -> list[dict]:
        """Detectron2 dataset dicts."""
        return load_data_set(self.split, self.data_set, self.root)

    @property
    def with_unseen(self) -> list[dict]:
        """Records whose annotation shows an unseen class."""
        return [record for record in self.records if classes_in_record(record) & self.unseen]


@dataclass(frozen=True)
class Outcome:
    """The prediction of a run for one image that shows an unseen class.

    Attributes:
        record: the image's dataset dict. quality: in percent, see ``panoptic_quality`` and ``mask_quality``.
        called: (class, predicted class or None if missed) of each ground-truth segment of an unseen class.
    """

    record: Mapping
    truth: Segmentation
    predicted: Segmentation
    quality: float
    called: list[tuple[int, int | None]]


def open_validation(run_folder: Path, root: Path) -> Validation:
    """The evaluation set that a run's ``config.yaml`` names, with its data below ``root``; UserError if missing."""
    path = run_folder / "config.yaml"
    config = read_yaml(path, "The config of a run,")["DATASETS"]
    name = config["TEST"][0]
    splits = map(load_split, (*(config.get("SPLIT_FILES") or ()), *shipped_split_files()))
    found = next(((split, d) for split in splits for d in split.data_sets if d.name == name), None)
    if found is None:
        raise UserError(f"No split file has the data set {name!r} that {path} names.")
    split, data_set = found
    if not (root / data_set.image_root).is_dir():
        raise UserError(f"The images of {name!r} are not in {root / data_set.image_root}.")
    space = split.class_space(data_set)
    contiguous = {dataset_id: i for i, dataset_id in space.dataset_ids.items()}
    return Validation(split, data_set, str(root), list(space.class_names), space.unseen, contiguous)


def data_root(bench: Bench, run: Run) -> Path:
    """``$DETECTRON2_DATASETS`` of a run: every seed has its own data; UserError when they are missing."""
    folder = bench.data["folders"].get(str(run.seed))
    if folder is None or not (bench.folder / folder).is_dir():
        raise UserError(f"The data of seed {run.seed} are missing: {folder}.")
    return bench.folder / folder


def first_run(bench: Bench, method: Method) -> tuple[Run, Validation]:
    """The first run of a method that has predictions, and its evaluation set; UserError when there is none."""
    problem = UserError(f"{method.title} was not run.")
    for run in bench.runs_of(method.name):
        try:
            validation = open_validation(run.folder, data_root(bench, run))
            if not _inference_folder(run.folder, validation).is_dir():
                raise UserError(f"The predictions of {run.folder.name} are missing.")
            return run, validation
        except UserError as error:
            problem = error
    raise problem


def first_outcomes(bench: Bench, method: Method) -> tuple[Run, Validation, list[Outcome]]:
    """As ``first_run``, with the predictions for the method's main task."""
    run, validation = first_run(bench, method)
    read = instance_outcomes if method.main_task is INSTANCE else panoptic_outcomes
    return run, validation, read(run.folder, validation)


def attempt(section: Section, method: Method, compute: Callable[[Method], T]) -> T | None:
    """The result of ``compute`` for a method; None, with a note in the section, if it fails."""
    try:
        return compute(method)
    except Exception as error:
        # A damaged file must affect its own image only. Errors other than missing files are logged in full.
        unexpected = not isinstance(error, (UserError, OSError))
        logger.warning("%s, %s: %s", section.title, method.title, error, exc_info=unexpected)
        note = f"{method.title}: not available. `python -m minibench report` prints the reason."
        section.blocks.append(Text(note, "note"))
        return None


def _inference_folder(run_folder: Path, validation: Validation) -> Path:
    """The folder of a run's evaluators: ``inference``, or its subfolder for the evaluation set if there are several."""
    below = run_folder / "inference" / validation.data_set.name
    return below if below.is_dir() else run_folder / "inference"


def panoptic_outcomes(run_folder: Path, validation: Validation) -> list[Outcome]:
    """The outcomes of a run with panoptic label maps, by ``panoptic_quality``; UserError when it has none."""
    folder = _inference_folder(run_folder, validation)
    path, maps = folder / "predictions.json", folder / "panoptic_png"
    if not path.is_file() or not maps.is_dir():
        raise UserError(f"{folder} has no panoptic predictions; they are written with TEST.WRITE_PNG True.")
    predictions = {item["image_id"]: item for item in read_json(path, "Panoptic predictions")["annotations"]}
    outcomes = []
    for record in validation.with_unseen:
        if item := predictions.get(record["image_id"]):
            classes = {s["id"]: validation.contiguous[s["category_id"]] for s in item["segments_info"]}
            predicted = Segmentation(read_panoptic_png(str(maps), item["file_name"]), classes, complete=True)
            truth = from_record(record)
            names = called(masks_of(truth), masks_of(predicted), validation.unseen)
            outcomes.append(Outcome(record, truth, predicted, panoptic_quality(truth, predicted), names))
    return outcomes


def instance_outcomes(run_folder: Path, validation: Validation) -> list[Outcome]:
    """The outcomes of a run with detections, by ``mask_quality``; UserError when it has none.

    The segmentation leaves out detections that are not drawn or hidden by better ones; ``called`` uses all.
    """
    path = _inference_folder(run_folder, validation) / "coco_instances_results.json"
    detections, outcomes = read_detections(path), []
    for record in validation.with_unseen:
        size = (record["height"], record["width"])
        found = sorted(detections.get(record["image_id"], []), key=lambda d: -d["score"])
        found = [{**d, "segmentation": as_rle(d["segmentation"], size)} for d in found]
        truth, predicted = from_record(record), from_detections(_in_sight(found), validation.contiguous, size)
        objects = [(a["category_id"], as_rle(a["segmentation"], size)) for a in record["annotations"]]
        answers = [(validation.contiguous.get(d["category_id"], -1), d["segmentation"]) for d in found]
        names = called(objects, answers, validation.unseen)
        outcomes.append(Outcome(record, truth, predicted, mask_quality(truth, predicted), names))
    return outcomes


def masks_of(segmentation: Segmentation) -> list[Mask]:
    """The masks of the segments that have a pixel."""
    pairs = [(label, segmentation.ids == segment) for segment, label in segmentation.classes.items()]
    return [(label, coco_mask.encode(np.asfortranarray(mask))) for label, mask in pairs if mask.any()]


def _iou(truth: list[Mask], found: list[Mask]) -> np.ndarray:
    """(F, T)."""
    masks = [[mask for _, mask in side] for side in (found, truth)]
    return coco_mask.iou(*masks, [0] * len(truth)) if truth and found else np.zeros((len(found), len(truth)))


def called(truth: list[Mask], found: list[Mask], classes: Collection[int]) -> list[tuple[int, int | None]]:
    """(class, predicted class or None) of each segment of ``classes`` in ``truth``: the first match in ``found``."""
    wanted = [(label, mask) for label, mask in truth if label in classes]
    hits = _iou(wanted, found) > FOUND
    names = [found[int(column.argmax())][0] if column.any() else None for column in hits.T]
    return [(label, name) for (label, _), name in zip(wanted, names, strict=True)]


def _in_sight(found: list[dict]) -> list[dict]:
    """The detections, best first, that better detections hide at most by half."""
    kept, covered = [], np.zeros((), dtype=bool)
    for detection in found:
        mask = coco_mask.decode(detection["segmentation"]).astype(bool)
        if (mask & ~covered).sum() >= VISIBLE * max(mask.sum(), 1):
            kept.append(detection)
            covered = covered | mask
    return kept


def panoptic_quality(truth: Segmentation, predicted: Segmentation) -> float:
    """PQ of one image in percent: the mean over the classes in ground truth or prediction; 0 for an empty image."""
    match = match_segments(truth.ids, truth.classes, (), predicted.ids, predicted.classes)
    labels = {*truth.classes.values(), *predicted.classes.values()}
    values = [q.pq for q in quality_per_class([match], labels).values() if q.present]
    return 100 * statistics.fmean(values) if values else 0.0


def mask_quality(truth: Segmentation, predicted: Segmentation) -> float:
    """IoU of each ground-truth segment with the best predicted segment of its class: the mean in percent."""
    wanted, found = masks_of(truth), masks_of(predicted)
    same = np.array([[name == label for label, _ in wanted] for name, _ in found], dtype=bool)
    best = (_iou(wanted, found) * same.reshape(len(found), len(wanted))).max(axis=0, initial=0.0)
    return 100 * float(best.mean()) if wanted else 0.0
