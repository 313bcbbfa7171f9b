"""What of the data is there, what is missing, and which configs can run.

    python -m PADing.data.verify                             # the shipped data sets and configs/
    python -m PADing.data.verify --split-file my_split.yaml --config my_config.yaml
    python -m PADing.data.verify --deep                      # also read every annotation file, as training would

Without ``--deep`` only folders, file names and the first picture of each data set are looked at, which takes seconds.
With it, sizes and labels of 100 pictures of each data set are compared with the annotation; ``--pictures 0``: of all.
"""

import argparse
import ast
import itertools
import logging
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from panopticapi.utils import rgb2id
from PIL import Image

from PADing.data.embeddings import clip_command, load_class_embeddings
from PADing.data.loaders import IMAGE_EXTENSIONS, load_data_set
from PADing.data.splits import IGNORE_LABEL, DataSet, Split, dataset_root, load_split, shipped_split_files
from PADing.errors import UserError
from PADing.files import read_json
from PADing.yaml_files import read_config_tree

__all__ = ["ConfigReport", "DataSetReport", "check_config", "check_data_set", "main"]

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class DataSetReport:
    """The state of one data set: problems (none: usable), and facts to print."""

    name: str
    problems: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass
class ConfigReport:
    """Whether a config can train and evaluate; each problem says what is missing."""

    path: str
    train_problems: list[str] = field(default_factory=list)
    test_problems: list[str] = field(default_factory=list)


def check_data_set(
    split: Split, data_set: DataSet, root: str | None = None, deep: bool = False, pictures: int = 100
) -> DataSetReport:
    """Look at the files of one data set; problems name the path and what makes it.

    Args:
        deep: also load it as training would, and compare ``pictures`` (0: all) of its files with the annotation.
    """
    report = DataSetReport(data_set.name)
    metadata = split.metadata(data_set, root)
    for key in ("json_file", "panoptic_json", "image_root", "panoptic_root", "sem_seg_root"):
        path = metadata.get(key)
        if path is None:
            continue
        if not os.path.exists(path):
            report.problems.append(f"{path} is missing")
        elif key.endswith("_root"):
            extensions = IMAGE_EXTENSIONS if key == "image_root" else (".png",)
            first = _first_file(path, extensions)
            if first is None:
                report.problems.append(f"{path} holds no {'picture' if key == 'image_root' else 'PNG'}")
            else:
                _check_picture(first, report)
                if key == "sem_seg_root":
                    _check_labels(first, len(split.classes(data_set)), report)
        elif os.path.getsize(path) == 0:
            report.problems.append(f"{path} is empty")
    if report.problems and data_set.made_by:
        report.problems.append(f"annotation made by: {data_set.made_by}; downloads: datasets/README.md")
    if report.ok and deep:
        _check_deep(split, data_set, root, report, pictures)
    return report


def _first_file(folder: str, extensions: tuple[str, ...]) -> str | None:
    for path, _, names in os.walk(folder, followlinks=True):
        for name in sorted(names):
            if name.lower().endswith(extensions) and not name.startswith("."):
                return os.path.join(path, name)
    return None


def _check_picture(path: str, report: DataSetReport) -> None:
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        report.problems.append(f"{path} cannot be read: {error}")


def _check_labels(path: str, classes: int, report: DataSetReport) -> None:
    try:
        with Image.open(path) as image:
            values = np.unique(np.asarray(image))
    except (OSError, SyntaxError, ValueError):
        return  # reported as a picture
    wrong = values[(values >= classes) & (values != IGNORE_LABEL)]
    if wrong.size:
        report.problems.append(
            f"{path} has the values {wrong.tolist()}, but labels must be contiguous ids below {classes}, or "
            f"{IGNORE_LABEL}; datasets/README.md says how to convert"
        )


def _check_deep(split: Split, data_set: DataSet, root: str | None, report: DataSetReport, pictures: int) -> None:
    try:
        dicts = load_data_set(split, data_set, root)
    except UserError as error:
        report.problems.append(str(error))
        return
    report.facts.append(f"{len(dicts)} images")
    keys = [key for key in ("file_name", "pan_seg_file_name", "sem_seg_file_name") if key in dicts[0]]
    for key in keys:
        missing = [entry[key] for entry in dicts if not os.path.isfile(entry[key])]
        if missing:
            report.problems.append(f"{len(missing)} of {len(dicts)} files are missing, e.g. {missing[0]}")
    part = {"instance": "annotations", "panoptic": "segments_info"}.get(data_set.kind)
    if part:
        objects = list(itertools.chain.from_iterable(entry[part] for entry in dicts))
        present = {entry["category_id"] for entry in objects if not entry.get("iscrowd", 0)}
        classes = split.classes(data_set)
        report.facts.append(f"{len(objects)} annotations")
        empty = [category.name for i, category in enumerate(classes) if i not in present]
        if empty:
            shown = ", ".join(empty[:8]) + (" ..." if len(empty) > 8 else "")
            report.facts.append(f"no annotation of {len(empty)} classes: {shown}")
    if report.ok:
        step = len(dicts) / min(pictures or len(dicts), len(dicts))
        sample = [dicts[int(i * step)] for i in range(int(len(dicts) / step + 0.5))]
        _check_against_annotation(split, data_set, sample, root, report)


def _check_against_annotation(
    split: Split, data_set: DataSet, dicts: list[dict], root: str | None, report: DataSetReport
) -> None:
    """Sizes of pictures and labels, values of label PNGs, and the segment ids of panoptic PNGs."""
    listed = {}
    if data_set.kind == "panoptic":
        # Read anew: the loaded dicts have lost the segments of classes that the split does not use.
        content = read_json(split.metadata(data_set, root)["panoptic_json"], data_set.name)
        listed = {a["image_id"]: {s["id"] for s in a["segments_info"]} for a in content["annotations"]}
    for entry in dicts:
        try:
            with Image.open(entry["file_name"]) as image:
                size = image.size
            stated = (entry.get("width", size[0]), entry.get("height", size[1]))
            if size != stated:
                report.problems.append(f"{entry['file_name']} is {size} (w, h), but {stated} in the annotation")
            for key in ("sem_seg_file_name", "pan_seg_file_name"):
                if key not in entry:
                    continue
                with Image.open(entry[key]) as image:
                    if image.size != size:
                        report.problems.append(f"{entry[key]} is {image.size} (w, h), but its picture {size}")
                    if key == "pan_seg_file_name":
                        ids = set(np.unique(rgb2id(np.asarray(image.convert("RGB")))).tolist()) - {0}
                        _check_segments(entry[key], ids, listed[entry["image_id"]], report)
                if key == "sem_seg_file_name":
                    _check_labels(entry[key], len(split.classes(data_set)), report)
        except (OSError, SyntaxError, ValueError) as error:
            report.problems.append(f"{entry['file_name']} or its labels cannot be read: {error}")
        if len(report.problems) >= 5:
            report.problems.append("further pictures were not looked at")
            return
    report.facts.append(f"{len(dicts)} pictures compared with their annotation")


def _check_segments(path: str, painted: set[int], listed: set[int], report: DataSetReport) -> None:
    for ids, what in ((painted - listed, "in the PNG only"), (listed - painted, "in the annotation only")):
        if ids:
            report.problems.append(f"{path}: the segment ids {sorted(ids)[:5]} are {what}")


def check_config(
    path: str, reports: dict[str, DataSetReport], splits: dict[str, tuple[Split, DataSet]]
) -> ConfigReport:
    """Whether the data sets and class vectors that a YAML config names are there. Nothing of the model is built.

    Args:
        reports: by data set name.
        splits: the split and its data set, by data set name.
    """
    result = ConfigReport(path)
    try:
        content = read_config_tree(path)
    except UserError as error:
        result.train_problems.append(str(error))
        result.test_problems.append(str(error))
        return result
    for key, problems in (("TRAIN", result.train_problems), ("TEST", result.test_problems)):
        names = content.get("DATASETS", {}).get(key, ())
        for name in _as_tuple(names):
            if name not in reports:
                problems.append(f"data set {name} is in no split file looked at")
            elif not reports[name].ok:
                problems.append(f"data set {name} is incomplete")
    names = [name for key in ("TEST", "TRAIN") for name in _as_tuple(content.get("DATASETS", {}).get(key, ()))]
    known = [splits[name] for name in names if name in splits]
    path = _vector_file(content, next((split.class_embeddings for split, _ in known if split.class_embeddings), ""))
    problem = _check_vectors(path, *known[0]) if path and known else ""
    if problem:
        result.train_problems.append(problem)
        # PADing needs them to train its generator only; D2Zero classifies with them.
        if content.get("MODEL", {}).get("META_ARCHITECTURE") != "PADing":
            result.test_problems.append(problem)
    return result


def _check_vectors(path: str, split: Split, data_set: DataSet) -> str:
    """What is wrong with a file of class vectors for the classes of a data set's split; "" if nothing is."""
    file = next((base / path for base in (Path.cwd(), REPOSITORY) if (base / path).is_file()), None)
    if file is None:
        command = data_set.made_by if _beside(path, data_set) else clip_command(split.file, path)
        return f"class vectors {path} are missing; made by: {command}"
    vocabulary = [category.name for category in split.vocabulary(data_set.kind, data_set.class_order)]
    unseen = set(split.unseen)
    columns = sorted(vocabulary, key=lambda name: name in unseen)  # of a .txt file: seen, then unseen
    try:
        load_class_embeddings(file, vocabulary, file_names=columns)
    except UserError as error:
        return str(error)
    return ""


def _beside(path: str, data_set: DataSet) -> bool:
    """Whether class vectors lie in the folder of a data set, so that what makes one makes the other."""
    return bool(data_set.made_by) and Path(path).parent == Path("datasets", Path(data_set.image_root).parts[0])


def _split_files(path: str) -> tuple:
    """``DATASETS.SPLIT_FILES`` of a config."""
    try:
        return _as_tuple(read_config_tree(path).get("DATASETS", {}).get("SPLIT_FILES"))
    except UserError:
        return ()  # reported with the config


def _as_tuple(value) -> tuple:
    # Detectron2's YAML files write tuples as text: ("name",)
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            pass  # a name without quotes
    return (value,) if isinstance(value, str) else tuple(value or ())


def _vector_file(content: dict, default: str) -> str:
    """The file of class vectors a config reads; "" for configs of models without any, which don't mention them."""
    model = content.get("MODEL", {})
    keys = (model.get("MASK_FORMER", {}), "VEC_PATH"), (model, "CLASS_EMBEDDINGS")
    set_values = [node[key] for node, key in keys if node.get(key) not in (None, "", "None")]
    mentioned = any(key in node for node, key in keys)
    return set_values[0] if set_values else default if mentioned else ""


def default_configs() -> list[str]:
    """The YAML files below ``configs/`` that are not mere bases."""
    files = (REPOSITORY / "configs").rglob("*.yaml")
    return sorted(str(file) for file in files if not file.name.startswith(("Base", "Mask2Former")))


def main(argv: list[str] | None = None, out=None) -> int:
    """Print the report; 0 when nothing is missing for the configs (or the own data sets) looked at, else 1."""
    parser = argparse.ArgumentParser(prog="python -m PADing.data.verify", description=__doc__.split("\n\n")[0])
    parser.add_argument("--split-file", nargs="+", default=[], help="check your own data sets instead")
    parser.add_argument("--config", nargs="+", help="configs to check (default: all below configs/)")
    parser.add_argument("--deep", action="store_true", help="also read every annotation file")
    parser.add_argument(
        "--pictures", type=int, default=100, help="pictures per data set that --deep compares; 0: all (default: 100)"
    )
    args = parser.parse_args(argv)
    loading = logging.getLogger("PADing.data")
    level = loading.level
    loading.setLevel(logging.ERROR)  # what matters here is in the report
    try:
        return _print_report(args, out or sys.stdout)
    finally:
        loading.setLevel(level)


def _print_report(args: argparse.Namespace, out) -> int:
    reports: dict[str, DataSetReport] = {}
    out.write(f"Data root: {os.path.abspath(dataset_root())} ($DETECTRON2_DATASETS, default `datasets`)\n")
    try:
        own = [*args.split_file, *(file for path in args.config or () for file in _split_files(path))]
        shipped = [] if args.split_file and not args.config else shipped_split_files()
        splits = [load_split(path) for path in dict.fromkeys([*shipped, *map(os.path.abspath, own)])]
    except UserError as error:
        out.write(f"{error}\n")
        return 1
    for split in splits:
        out.write(f"\n{split.name}  ({len(split.seen)} seen, {len(split.unseen)} unseen classes)\n")
        for data_set in split.data_sets:
            report = check_data_set(split, data_set, deep=args.deep, pictures=args.pictures)
            reports[data_set.name] = report
            facts = f": {'; '.join(report.facts)}" if report.facts else ""
            out.write(f"  {'ok     ' if report.ok else 'MISSING'}  {data_set.name}{facts}\n")
            out.writelines(f"             {problem}\n" for problem in report.problems)
    if not shipped:
        return int(not all(report.ok for report in reports.values()))
    by_name = {data_set.name: (split, data_set) for split in splits for data_set in split.data_sets}
    configs = [check_config(path, reports, by_name) for path in (args.config or default_configs())]
    out.write("\nConfigs\n")
    for config in configs:
        train, test = ["no" if p else "yes" for p in (config.train_problems, config.test_problems)]
        out.write(f"  train {train:3}  evaluate {test:3}  {os.path.relpath(config.path)}\n")
        problems = dict.fromkeys(config.train_problems + config.test_problems)
        out.writelines(f"             {problem}\n" for problem in problems)
    return int(any(config.train_problems or config.test_problems for config in configs))


if __name__ == "__main__":
    sys.exit(main())
