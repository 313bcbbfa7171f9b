"""Checks the files of a data set: that they exist, and that the loaders and mappers of training accept them."""

import functools
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from multiprocessing import Pool

import numpy as np
from detectron2.data import MetadataCatalog
from tqdm import tqdm

from PADing.data.dataset_mappers import (
    COCOInstanceNewBaselineDatasetMapper,
    COCOPanopticNewBaselineDatasetMapper,
    MaskFormerSemanticDatasetMapper,
)
from PADing.data.dataset_mappers.base import read_class_labels
from PADing.data.images import (
    CorruptFile,
    check_class_labels,
    empty_segments,
    present_ids,
    read_image,
    read_labels,
    read_panoptic_ids,
)
from PADing.data.loaders import IMAGE_EXTENSIONS, OWN_PAGES, load_data_set, missing_data, missing_message
from PADing.data.registration import registered_split
from PADing.data.splits import IGNORE_LABEL, NEEDED_PATHS, DataSet, Split
from PADing.errors import UserError

SHOWN = 5


def missing_files(name: str) -> str:
    """The message for missing folders and annotation files of a registered data set; "" if none is missing.

    Opens no file, so that every command can call it at its start.
    """
    metadata, split = MetadataCatalog.get(name), registered_split(name)
    data_set = split.data_set(name) if split else None
    if split and data_set and (problem := missing_data(split, data_set)):
        return problem
    kind = "panoptic" if metadata.get("panoptic_json") else "instance" if metadata.get("json_file") else "semantic"
    absent = []
    for key in NEEDED_PATHS[data_set.kind if data_set else kind]:
        path = metadata.get("json_file" if key == "json" else key)
        if path is None or "://" in path:
            continue  # set by another package, or downloaded when it is read
        folder = key.endswith("_root")
        if not (os.path.isdir(path) if folder else os.path.isfile(path)):
            absent.append(f"{path} (not a {'folder' if folder else 'file'})" if os.path.exists(path) else path)
    page = "docs/other_datasets.md" if metadata.get("evaluation_only") else OWN_PAGES
    return missing_message(name, data_set.made_by if data_set else "", *absent, pages=page) if absent else ""


@dataclass
class DataSetReport:
    """The state of one data set: what is ``missing``, what is ``wrong``, and ``facts`` to print, a phrase each."""

    name: str
    missing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """What is missing, then what is wrong."""
        return self.missing + self.wrong

    @property
    def ok(self) -> bool:
        """Whether the data set is usable: nothing is missing or wrong."""
        return not self.problems

    @property
    def state(self) -> str:
        """One word for a report."""
        return "WRONG" if self.wrong else "MISSING" if self.missing else "ok"


def check_data_set(
    split: Split, data_set: DataSet, root: str | None = None, deep: bool = False, images: int = 0, workers: int = 1
) -> DataSetReport:
    """Check the files of one data set; each problem names the path, what is wrong and what to do.

    Args:
        split: the split that has the data set.
        data_set: the data set.
        root: the data root; None: ``$DETECTRON2_DATASETS``, else ``datasets``.
        deep: also load the data set as training would, and read every image with its annotation. False: check folders,
            file names and the first image.
        images: with ``deep``, the number of images to read, evenly spread; 0: all.
        workers: the number of processes that read images.
    """
    report = DataSetReport(data_set.name)
    metadata = split.metadata(data_set, root)
    for key in ("json_file", "panoptic_json", "image_root", "panoptic_root", "sem_seg_root"):
        path = metadata.get(key)
        if path is None:
            continue
        if not os.path.exists(path):
            report.missing.append(f"{path} is missing")
        elif os.path.isdir(path) != key.endswith("_root"):
            report.wrong.append(f"{path} is {'a folder' if os.path.isdir(path) else 'a file'}; the split file is wrong")
        elif key.endswith("_root"):
            first = _first_file(path, IMAGE_EXTENSIONS if key == "image_root" else (".png",))
            if first is None:
                report.missing.append(f"{path} has no {'image' if key == 'image_root' else 'PNG'}")
            else:
                _add_problem(report.wrong, _read_first, split, data_set, key, first)
        elif os.path.getsize(path) == 0:
            report.wrong.append(f"{path} is empty")
    if report.missing and data_set.made_by:
        page = "docs/other_datasets.md" if split.evaluation_only else "docs/coco.md"
        report.missing.append(f"make the annotation with: {data_set.made_by}; downloads: {page}")
    if report.ok and data_set.images and not deep:
        _check_number(data_set, _number_of_labels(metadata), report)
    if report.ok and deep:
        _check_deep(split, data_set, root, report, images, workers)
    return report


def _number_of_labels(metadata: dict) -> int:
    """The number of label or panoptic PNGs; 0 if the data set has none, so that a JSON would have to be read."""
    roots = [metadata[key] for key in ("panoptic_root", "sem_seg_root") if key in metadata]
    names = (name for _, _, files in os.walk(roots[0]) for name in files) if roots else ()
    return sum(name.endswith(".png") and not name.startswith(".") for name in names)


def _check_number(data_set: DataSet, number: int, report: DataSetReport) -> None:
    if number and data_set.images and number not in data_set.images:
        release = " or ".join(f"{images:,}" for images in data_set.images)
        report.wrong.append(
            f"{number:,} images, but the release has {release}, so metrics are not comparable; unpack the downloads "
            f"again, then: {data_set.made_by} --overwrite"
        )


def _first_file(folder: str, extensions: tuple[str, ...]) -> str | None:
    for path, _, names in os.walk(folder, followlinks=True):
        for name in sorted(names):
            if name.lower().endswith(extensions) and not name.startswith("."):
                return os.path.join(path, name)
    return None


def _read_first(split: Split, data_set: DataSet, key: str, path: str) -> None:
    if key == "sem_seg_root":
        _check_labels(split, data_set, path)
    else:
        (read_image if key == "image_root" else read_panoptic_ids)(path)


def _add_problem(problems: list[str], function: Callable, *args) -> None:
    try:
        function(*args)
    except UserError as error:
        problems.append(str(error).rstrip("."))


@functools.lru_cache(maxsize=4)
def _label_count(split: Split, data_set: DataSet) -> int:
    # Training ignores the pixels of unseen classes, so its label maps may contain them.
    space = split.class_space(data_set)
    return len(space.vocabulary if data_set.role == "train" else space)


def _check_deep(
    split: Split, data_set: DataSet, root: str | None, report: DataSetReport, images: int, workers: int
) -> None:
    try:
        records = load_data_set(split, data_set, root)
    except UserError as error:
        report.wrong.append(str(error).rstrip("."))
        return
    report.facts.append(f"{len(records)} images")
    _count_annotations(split, data_set, records, report)
    for key in ("file_name", "pan_seg_file_name", "sem_seg_file_name"):
        absent = [record[key] for record in records if key in record and not os.path.isfile(record[key])]
        if absent:
            report.missing.append(f"{len(absent)} of {len(records)} files are missing, e.g. {absent[0]}")
    if not report.ok:
        return
    step = len(records) / min(images or len(records), len(records))
    chosen = [records[int(i * step)] for i in range(int(len(records) / step + 0.5))]
    read = functools.partial(_read_record, split, data_set)
    with Pool(workers) if workers > 1 and len(chosen) >= 100 else nullcontext() as pool:
        results = pool.imap(read, chosen, chunksize=16) if pool else map(read, chosen)
        found = list(tqdm(results, total=len(chosen), desc=data_set.name, unit="image", leave=False, mininterval=1))
    problems = [problem for problems, _ in found for problem in problems]
    report.wrong += problems[:SHOWN]
    if len(problems) > SHOWN:
        report.wrong.append(f"{len(problems) - SHOWN} further problems of this kind")
    _check_number(data_set, len(records), report)
    amount = "all" if len(chosen) == len(records) else f"{len(chosen)} of {len(records)}"
    report.facts.append(f"{amount} images read with their annotation")
    empty = sum(count for _, count in found)
    if empty:
        images = sum(count > 0 for _, count in found)
        report.facts.append(f"{empty} segments of {images} images have no pixel in their PNG and are left out")


def _count_annotations(split: Split, data_set: DataSet, records: list[dict], report: DataSetReport) -> None:
    part = {"instance": "annotations", "panoptic": "segments_info"}.get(data_set.kind)
    if not part:
        return
    objects = [entry for record in records for entry in record[part]]
    present = {entry["category_id"] for entry in objects if not entry.get("iscrowd", 0)}
    report.facts.append(f"{len(objects)} annotations")
    if data_set.role == "train" and not present:
        report.wrong.append("no image has an annotation to train on")
    empty = [name for i, name in split.class_space(data_set).names.items() if i not in present]
    if empty:
        shown = ", ".join(empty[:8]) + (" ..." if len(empty) > 8 else "")
        report.facts.append(f"no annotation of {len(empty)} classes: {shown}")


def _read_record(split: Split, data_set: DataSet, record: dict) -> tuple[list[str], int]:
    """Problems for which training or evaluation would refuse a record, and how many of its segments are left out."""
    mapper = _mapper(split, data_set)
    problems: list[str] = []
    if data_set.kind == "instance" and data_set.role == "val":
        # Annotations without a mask can be evaluated, but not trained on.
        record = {**record, "annotations": [a for a in record["annotations"] if a.get("segmentation") is not None]}
    _add_problem(problems, mapper, record)
    empty = 0
    if not problems and data_set.kind == "panoptic":
        ids = read_panoptic_ids(record["pan_seg_file_name"])
        empty = len(empty_segments(ids, record["segments_info"], record["pan_seg_file_name"]))
        if "sem_seg_file_name" in record:
            _add_problem(problems, _check_labels, split, data_set, record["sem_seg_file_name"], ids.shape)
        if data_set.role == "val" or data_set.subset == "all":
            # In a training set of seen classes, unseen segments may be missing in the JSON but not in the PNGs.
            _add_problem(problems, _refuse_unlisted, record, ids)
    return problems, empty


@functools.lru_cache(maxsize=4)
def _mapper(split: Split, data_set: DataSet):
    if data_set.kind == "semantic":
        count = _label_count(split, data_set)
        return MaskFormerSemanticDatasetMapper(True, augmentations=[], ignore_label=IGNORE_LABEL, num_labels=count)
    mappers = {"instance": COCOInstanceNewBaselineDatasetMapper, "panoptic": COCOPanopticNewBaselineDatasetMapper}
    return mappers[data_set.kind](True, augmentations=[])


def _check_labels(split: Split, data_set: DataSet, path: str, size: tuple[int, int] | None = None) -> None:
    labels = read_class_labels(path, size) if size else read_labels(path)
    check_class_labels(labels, path, _label_count(split, data_set), IGNORE_LABEL)


def _refuse_unlisted(record: dict, ids: np.ndarray) -> None:
    listed = {segment["id"] for segment in record["segments_info"]} | set(record.get("other_segment_ids", ()))
    unlisted = sorted(present_ids(ids) - listed - {0})
    if unlisted:
        raise CorruptFile(f"{record['pan_seg_file_name']}: the segment ids {unlisted[:5]} are in the PNG only.")
