"""The validation set of a run, and what the run predicted on it, from files."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from PADing.data.loaders import load_data_set
from PADing.data.splits import DataSet, Split, load_split, shipped_split_files
from PADing.errors import UserError
from PADing.evaluation.panoptic import read_panoptic_png
from PADing.visualization import Segmentation
from PADing.yaml_files import read_yaml

__all__ = [
    "ANALYSIS",
    "Prediction",
    "Validation",
    "analysis_is_fresh",
    "detections",
    "inference_folder",
    "open_validation",
    "panoptic_predictions",
    "rle",
    "with_unseen",
]


# In a run's folder: what ``minibench.analysis`` writes.
ANALYSIS = "analysis.npz"


@dataclass(frozen=True)
class Validation:
    """The first test set of a run.

    Attributes:
        root: what its paths are relative to (``$DETECTRON2_DATASETS``).
        names: class names by contiguous id. unseen: ids of unseen classes. contiguous: category id -> contiguous id.
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


def open_validation(run_folder: Path, root: Path) -> Validation:
    """The test set that a run's ``config.yaml`` names, with its data below ``root``.

    Raises:
        UserError: the run has no readable config, or no split file knows its test set, or the data are gone.
    """
    path = run_folder / "config.yaml"
    config = read_yaml(path, "The config of a run,")["DATASETS"]
    name = config["TEST"][0]
    for file in (*(config.get("SPLIT_FILES") or ()), *shipped_split_files()):
        split = load_split(file)
        data_set = next((d for d in split.data_sets if d.name == name), None)
        if data_set is not None:
            break
    else:
        raise UserError(f"No split file has the data set {name!r} that {path} names.")
    if not (root / data_set.image_root).is_dir():
        raise UserError(f"The pictures of {name!r} are not in {root / data_set.image_root}.")
    classes = split.classes(data_set)
    return Validation(
        split=split,
        data_set=data_set,
        root=str(root),
        names=[c.name for c in classes],
        unseen=frozenset(i for i, c in enumerate(classes) if c.name in set(split.unseen)),
        contiguous={c.id: i for i, c in enumerate(classes)},
    )


def inference_folder(run_folder: Path, validation: Validation) -> Path:
    """Where a run's evaluators have written: ``inference``, with a folder below it for each of several test sets."""
    below = run_folder / "inference" / validation.data_set.name
    return below if below.is_dir() else run_folder / "inference"


def panoptic_predictions(run_folder: Path, validation: Validation) -> dict[int, "Prediction"]:
    """Image id -> its panoptic prediction; the label picture is read when it is asked for.

    Raises:
        UserError: there are none (``TEST.WRITE_PNG`` was off).
    """
    folder = inference_folder(run_folder, validation)
    path, pictures = folder / "predictions.json", folder / "panoptic_png"
    if not path.is_file() or not pictures.is_dir():
        raise UserError(f"{folder} has no panoptic predictions; they are written with TEST.WRITE_PNG True.")
    content = json.loads(path.read_text(encoding="utf-8"))["annotations"]
    found = {}
    for item in content:
        classes = {s["id"]: validation.contiguous[s["category_id"]] for s in item["segments_info"]}
        found[item["image_id"]] = Prediction(pictures, item["file_name"], classes)
    return found


@dataclass(frozen=True)
class Prediction:
    """A panoptic prediction on disk."""

    folder: Path
    file_name: str
    classes: dict[int, int]

    def read(self) -> Segmentation:
        ids: np.ndarray = read_panoptic_png(str(self.folder), self.file_name)
        return Segmentation(ids, self.classes)


def detections(run_folder: Path, validation: Validation) -> dict[int, list[dict]]:
    """Image id -> detections in COCO's format, best first, masks as RLE. UserError when the run has none."""
    path = inference_folder(run_folder, validation) / "coco_instances_results.json"
    if not path.is_file():
        raise UserError(f"{path} does not exist.")
    sizes = {record["image_id"]: (record["height"], record["width"]) for record in validation.records}
    found = defaultdict(list)
    for detection in json.loads(path.read_text(encoding="utf-8")):
        image = detection["image_id"]
        found[image].append({**detection, "segmentation": rle(detection["segmentation"], sizes[image])})
    for items in found.values():
        items.sort(key=lambda d: -d["score"])
    return dict(found)


def rle(segmentation: list | dict, size: tuple[int, int]) -> dict:
    """Compressed RLE of polygons, of uncompressed or of compressed RLE; size: (H, W)."""
    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
    return coco_mask.frPyObjects(segmentation, *size) if isinstance(segmentation["counts"], list) else segmentation


def analysis_is_fresh(run_folder: Path) -> bool:
    """Whether the embeddings of a run have been looked at since its weights were written."""
    done, weights = run_folder / ANALYSIS, run_folder / "model_final.pth"
    return done.is_file() and (not weights.is_file() or done.stat().st_mtime >= weights.stat().st_mtime)


def with_unseen(validation: Validation) -> Iterator[dict]:
    """Records whose annotation shows an unseen class."""
    for record in validation.records:
        parts = record.get("segments_info") or record.get("annotations") or ()
        if any(part["category_id"] in validation.unseen for part in parts):
            yield record
