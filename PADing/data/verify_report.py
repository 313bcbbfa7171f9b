"""The report of ``python -m PADing.data.verify``: which data are present, and which configs can run."""

import argparse
import os
from collections.abc import Callable, Iterable

from detectron2.data import DatasetCatalog

from PADing.config_values import literal
from PADing.data.check import DataSetReport, check_data_set, missing_files
from PADing.data.embeddings import OtherClasses, find_embeddings, load_class_embeddings, making_command
from PADing.data.splits import (
    DataSet,
    Split,
    dataset_root,
    evaluation_split_files,
    load_split,
    mini2_split_files,
    shipped_split_files,
)
from PADing.errors import UserError
from PADing.files import REPOSITORY
from PADing.plugins import import_plugins
from PADing.yaml_files import read_config_files, read_config_tree


def _check_config(
    path: str, reports: dict[str, DataSetReport], splits: dict[str, tuple[Split, DataSet]]
) -> tuple[list[str], list[str]]:
    """What prevents a config from training, and from evaluating; ``reports`` and ``splits``: by data set name."""
    train: list[str] = []
    test: list[str] = []
    try:
        content, folders = read_config_files(path)
        import_plugins(content.get("PLUGINS", ()), folders)
    except UserError as error:
        return [str(error)], [str(error)]
    data_sets = _section(content, "DATASETS")
    named = {key: _as_tuple(data_sets.get(key)) for key in ("TEST", "TRAIN")}
    for key, problems in (("TRAIN", train), ("TEST", test)):
        for name in named[key]:
            if name in reports:
                if not reports[name].ok:
                    problems.append(f"data set {name} is {'wrong' if reports[name].wrong else 'incomplete'}")
            elif name not in DatasetCatalog.list():
                problems.append(f"data set {name} is in none of these split files")
            elif missing := missing_files(name):  # a plug-in's data set has no report
                problems.append(missing)
    known = [splits[name] for name in (*named["TEST"], *named["TRAIN"]) if name in splits]
    default = next((split.class_embeddings for split, _ in known if split.class_embeddings), "")
    embeddings = _embedding_files(content, default)
    problem = _check_embeddings(embeddings, *known[0]) if embeddings and known else ""
    if problem:
        train.append(problem)
        # PADing needs class embeddings only to train its generator; D2Zero also classifies with them.
        if _section(content, "MODEL").get("META_ARCHITECTURE") != "PADing":
            test.append(problem)
    return train, test


def _embedding_files(content: dict, default: str) -> list[str]:
    """The embedding file that a config names, and the file that may replace it; empty if the config has neither key."""
    model = _section(content, "MODEL")
    keys = (_section(model, "MASK_FORMER"), "VEC_PATH"), (model, "CLASS_EMBEDDINGS")
    if not any(key in node for node, key in keys):
        return []
    values = [str(node[key]) for node, key in keys if node.get(key) not in (None, "", "None")]
    return list(dict.fromkeys(filter(None, [*values, default])))[:2]


def _check_embeddings(paths: list[str], split: Split, data_set: DataSet) -> str:
    """The problem of class embeddings for a data set's split; "" if none. The second file replaces one without them."""
    file = find_embeddings(paths[0])
    if file is None:
        return f"class embeddings {paths[0]} are missing; make them with: {making_command(split.file, paths[0])}"
    space = split.class_space(data_set)
    try:
        # Columns of a .txt file: seen classes, then unseen ones.
        load_class_embeddings(file, space.vocabulary, file_names=(*space.seen_names, *space.unseen_names))
    except OtherClasses as error:  # training reads the second file then
        return _check_embeddings(paths[1:], split, data_set) if paths[1:] else str(error)
    except UserError as error:
        return str(error)
    return ""


def _split_files(path: str) -> tuple[str, ...]:
    """``DATASETS.SPLIT_FILES`` of a config."""
    try:
        return _as_tuple(_section(read_config_tree(path), "DATASETS").get("SPLIT_FILES"))
    except UserError:
        return ()  # reported with the config


def _as_tuple(value: object) -> tuple[str, ...]:
    value = literal(value)  # Detectron2's YAML files write tuples as text: ("name",)
    return tuple(map(str, value)) if isinstance(value, list | tuple) else (str(value),) if value else ()


def _section(content: dict, key: str) -> dict:
    """A section of a config; empty if it is not a section, which loading the config reports."""
    return content[key] if isinstance(content.get(key), dict) else {}


def _is_begun(split: Split, some: Callable[[Iterable[bool]], bool] = any) -> bool:
    """Whether the images of some data set of a split are there; with ``all``: images and semantic maps of each one."""
    keys = ("image_root",) if some is any else ("image_root", "sem_seg_root")
    metadata = map(split.metadata, split.data_sets)
    return some(os.path.isdir(entry[key]) for entry in metadata for key in keys if key in entry)


def print_report(args: argparse.Namespace, out) -> bool:
    """Print the report; returns whether there is a problem."""
    reports: dict[str, DataSetReport] = {}
    out.write(f"Data root: {os.path.abspath(dataset_root())} ($DETECTRON2_DATASETS, default `datasets`)\n")
    own = [*args.split_file, *(file for path in args.config or () for file in _split_files(path))]
    shipped = [] if args.split_file and not args.config else shipped_split_files()
    splits = [load_split(path) for path in dict.fromkeys([*shipped, *map(os.path.abspath, own)])]
    # Sets of other classes: only those of which something is there.
    others = [split for split in map(load_split, evaluation_split_files() if shipped else ()) if _is_begun(split)]
    # Folds of the mini data, version 2: only those that are drawn.
    others += [split for split in map(load_split, mini2_split_files() if shipped else ()) if _is_begun(split, all)]
    splits += [split for split in others if split.file not in {other.file for other in splits}]
    for split in splits:
        known = f"{len(split.seen)} seen, {len(split.unseen)} unseen classes"
        classes = f"{len(split.seen)} classes, for evaluation alone" if split.evaluation_only else known
        out.write(f"\n{split.name}  ({classes})\n")
        for data_set in split.data_sets:
            report = check_data_set(split, data_set, deep=args.deep, images=args.images, workers=args.workers)
            reports[data_set.name] = report
            facts = f": {'; '.join(report.facts)}" if report.facts else ""
            out.write(f"  {report.state:7}  {data_set.name}{facts}\n")
            out.writelines(f"             {problem}\n" for problem in report.problems)
    if not shipped:
        return not all(report.ok for report in reports.values())
    by_name = {data_set.name: (split, data_set) for split in splits for data_set in split.data_sets}
    out.write("\nConfigs\n")
    incomplete = False
    # Shipped configs, without those that are only bases of others.
    files = sorted(map(str, (REPOSITORY / "configs").rglob("*.yaml")))
    shipped_configs = [file for file in files if not os.path.basename(file).startswith(("Base", "Mask2Former"))]
    for path in args.config or shipped_configs:
        train, test = _check_config(path, reports, by_name)
        trains, evaluates = ["no" if problems else "yes" for problems in (train, test)]
        out.write(f"  train {trains:3}  evaluate {evaluates:3}  {os.path.relpath(path)}\n")
        out.writelines(f"             {problem}\n" for problem in dict.fromkeys(train + test))
        incomplete |= bool(train or test)
    return incomplete
