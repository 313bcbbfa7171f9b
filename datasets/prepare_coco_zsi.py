#!/usr/bin/env python3
"""Zero-shot instance annotation from the official COCO files, for the 48/17 and the 65/15 split.

    python datasets/prepare_coco_zsi.py                  # both splits
    python datasets/prepare_coco_zsi.py --split 48_17

From ``annotations/instances_{train,val}2014.json`` it writes the file of every instance data set in
``datasets/splits/coco_zsi_*.yaml`` to ``annotations/ZSIS/``. The rules:

    train, seen classes    Annotations of seen classes. Images without unseen classes (crowd regions count) that have at
                           least one seen instance that is not a crowd.
    val, all classes       Annotations of seen and unseen classes; images with at least one of them.
    val, unseen classes    Annotations of unseen classes; images with at least one of them.

Classes in neither list (15 of the 80 in the 48/17 split) are treated as not annotated: images may show them. Crowd
regions of kept classes are kept. ``categories`` lists the classes of the file in the split's order (seen, then unseen).
Everything else, ids included, is COCO's.

To compare with published metrics, use the original files instead: the ZSI project's annotation, which D2Zero's data
page links, is in the public folder https://drive.google.com/drive/folders/1TLbmDoRiKcMGq1zyVahXtGVTdkvI9Dus. Put the
files into ``annotations/ZSIS/`` under the names above; existing files are kept and checked. This script follows the
rules; the originals may differ in detail. It prints the counts of every file so that you can compare them.

For your own data, name a split file with instance data sets and the complete annotations:

    python datasets/prepare_coco_zsi.py --split-file my_split.yaml --train-json train.json --val-json val.json
"""

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()  # before the imports that take seconds

import logging
import os
import sys
from pathlib import Path

from tqdm import tqdm

from PADing.command_line import CommandParser, run_command
from PADing.data.coco_schema import check_instances
from PADing.data.loaders import load_data_set
from PADing.data.preparation import read_annotation
from PADing.data.splits import DataSet, Split, dataset_root, load_split
from PADing.errors import UserError
from PADing.files import write_json

logger = logging.getLogger("prepare_coco_zsi")

SPLITS = ("48_17", "65_15")


def select(content: dict, split: Split, data_set: DataSet) -> dict:
    """The annotation of one data set from complete COCO instances, by the rules of the module."""
    by_name = {category["name"]: category for category in content["categories"]}
    classes = split.classes(data_set)
    missing = [category.name for category in classes if category.name not in by_name]
    if missing:
        raise UserError(f"The annotation has no category called {', '.join(missing)}, which {split.file} lists.")
    keep = {by_name[category.name]["id"] for category in classes}
    annotations = [a for a in content["annotations"] if a["category_id"] in keep]
    if data_set.role == "train" and data_set.subset == "seen":
        unseen = {by_name[name]["id"] for name in split.unseen if name in by_name}
        with_unseen = {a["image_id"] for a in content["annotations"] if a["category_id"] in unseen}
        images = {a["image_id"] for a in annotations if not a.get("iscrowd", 0)} - with_unseen
    else:
        images = {a["image_id"] for a in annotations}
    return {
        **content,
        "images": [image for image in content["images"] if image["id"] in images],
        "annotations": [a for a in annotations if a["image_id"] in images],
        "categories": [by_name[category.name] for category in classes],
    }


def prepare(split: Split, train_json: str, val_json: str, root: str, force: bool = False) -> dict[str, dict[str, int]]:
    """Write the annotation of every instance data set of ``split``; existing files are kept.

    Returns counts by data set name: ``images, annotations, crowds, classes`` (classes that have an instance).
    UserError: a missing or damaged input, or an existing output that was made for another split.
    """
    data_sets = [d for d in split.data_sets if d.kind == "instance"]
    if not data_sets:
        raise UserError(f"Split file {split.file} has no instance data set.")
    outputs = {data_set.name: split.metadata(data_set, root)["json_file"] for data_set in data_sets}
    for name, output in outputs.items():
        for source in filter(os.path.exists, (train_json, val_json)):
            if os.path.exists(output) and os.path.samefile(source, output):
                raise UserError(f"Data set {name} in {split.file} names the source {source}, which would be replaced.")
    contents: dict[str, dict] = {}
    counts = {}
    for data_set in tqdm(data_sets, desc=split.name, unit="file"):
        output, source = outputs[data_set.name], train_json if data_set.role == "train" else val_json
        if force or not os.path.exists(output):
            if source not in contents:  # keep only the last one in memory
                contents = {source: read_annotation(source, "COCO annotation", check_instances)}
            write_json(output, select(contents[source], split, data_set))
        counts[data_set.name] = _check(split, data_set, root, output)
    return counts


def _check(split: Split, data_set: DataSet, root: str, output: str) -> dict[str, int]:
    """Read a written file as training would, check and count."""
    content = read_annotation(output, "Written annotation", check_instances)
    names = {category["id"]: category["name"] for category in content["categories"]}
    if sorted(names.values()) != sorted(category.name for category in split.classes(data_set)):
        raise UserError(f"{output} was made for another split. Make it again with --force.")
    objects = [a["category_id"] for a in content["annotations"] if not a.get("iscrowd", 0)]
    present = set(objects)
    empty = [name for category_id, name in names.items() if category_id not in present]
    counts = {
        "images": len(content["images"]),
        "annotations": len(content["annotations"]),
        "crowds": len(content["annotations"]) - len(objects),
        "classes": len(names) - len(empty),
    }
    if empty:
        logger.info("%s: no instance of %s", output, ", ".join(empty))
    images = split.metadata(data_set, root)["image_root"]
    if not os.path.isdir(images):
        logger.warning("%s does not exist yet. Put the images there.", images)
        return counts
    first = load_data_set(split, data_set, root)[0]["file_name"]
    if not os.path.isfile(first):
        raise UserError(f"{output} names the image {first}, which does not exist.")
    return counts


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    root = dataset_root()
    annotations = os.path.join(root, "coco", "annotations")
    parser = CommandParser(__doc__)
    which = "shipped splits (default: both)"
    parser.add_argument("--split", nargs="+", choices=SPLITS, default=SPLITS, help=which)
    parser.add_argument("--split-file", help="your own split file instead")
    for part in ("train", "val"):
        path = os.path.join(annotations, f"instances_{part}2014.json")
        parser.add_argument(f"--{part}-json", default=path, help="complete COCO instances")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    files = [Path(__file__).resolve().parent / "splits" / f"coco_zsi_{name}.yaml" for name in args.split]

    def run() -> None:
        for file in [args.split_file] if args.split_file else files:
            _print_counts(prepare(load_split(file), args.train_json, args.val_json, root, args.force))

    return run_command(run)


def _print_counts(counts: dict[str, dict[str, int]]) -> None:
    """One row per data set, to compare with the original files."""
    columns = ("images", "annotations", "crowds", "classes")
    width = max(len(name) for name in counts)
    print(f"{'':{width}}  " + "  ".join(f"{column:>11}" for column in columns))
    for name, row in counts.items():
        print(f"{name:{width}}  " + "  ".join(f"{row[column]:11,}" for column in columns))


if __name__ == "__main__":
    sys.exit(main())
