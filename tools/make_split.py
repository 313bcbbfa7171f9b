#!/usr/bin/env python3
"""Make a split file from COCO-format annotation and a list of unseen classes.

    python tools/make_split.py --name mine --unseen "cat,dog" --output my_split.yaml \\
        --train-json train.json --train-images images/train --val-json val.json --val-images images/val

Categories (ids, names, thing or stuff, colors) come from the JSON files. JSONs with ``segments_info`` are panoptic and
need ``--train-panoptic`` and ``--val-panoptic``, the folders of their PNGs, and may have ``--train-instances`` and
``--val-instances``, COCO instances for box and mask figures. Folders of semantic label PNGs (contiguous ids;
datasets/README.md says how to make them) are added by ``--train-labels`` and ``--val-labels``; data with nothing but
labels take their classes from ``--categories``, a JSON with a list of ``{"id", "name"}``. At the end it prints the
commands that train on the data.
"""

import argparse
import logging
import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches

import yaml

from PADing.command_line import run_command
from PADing.data.coco_schema import check_categories, check_instances, check_panoptic
from PADing.data.embedding_sources import read_names
from PADing.data.splits import DataSet, Split, load_split, split_from_dict
from PADing.errors import UserError
from PADing.files import read_json, replacing

logger = logging.getLogger("make_split")

# Seen classes that the published classification term counts (MODEL.MASK_FORMER.CLS_SLICE).
PUBLISHED_SEEN = 156


def make_split(
    name: str,
    unseen: list[str],
    output: str,
    train: dict[str, str | None],
    val: dict[str, str | None],
    class_embeddings: str = "",
    categories: str | None = None,
) -> Split:
    """Write the split file ``output`` and return it, read back.

    Args:
        name: name of the split, and beginning of its data sets' names (``<name>_train_instance`` ...).
        unseen: names of unseen classes; names that hold commas may come in pieces.
        train, val: paths by ``json, images, panoptic, instances, labels`` (see the command line); missing ones None.
        class_embeddings: default file of class vectors.
        categories: a JSON file with the classes, for data without annotation JSON.

    Raises:
        UserError: what is wrong in which file.
    """
    given = {role: paths["json"] for role, paths in (("train", train), ("val", val)) if paths.get("json")}
    contents = {role: _read_annotation(path) for role, path in given.items()}
    lists = [(path, contents[role]["categories"]) for role, path in given.items()]
    if categories:
        lists.append((categories, _read_categories(categories)))
    if not lists:
        raise UserError("The classes are unknown: give --train-json, --val-json or --categories.")
    classes = _merged_categories(lists)
    known = [entry["name"] for entry in classes]
    unseen = _checked_unseen(_with_commas(unseen, known), known)
    data_sets = []
    for role, paths in (("train", train), ("val", val)):
        data_sets += _data_sets(name, role, paths, contents.get(role), os.path.dirname(os.path.abspath(output)))
    content = {"name": name, "categories": classes, "unseen": unseen, "data_sets": data_sets}
    if class_embeddings:
        content["class_embeddings"] = _relative(class_embeddings, os.path.dirname(os.path.abspath(output)))
    if not data_sets:
        raise UserError("No data set is left to describe: give --train-images or --val-images and their annotation.")
    # Checked before it is written, so that a mistake leaves no file behind.
    split_from_dict(content, os.path.abspath(output))
    with replacing(output) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(_as_yaml(content))
    split = load_split(output)
    _report(split, contents)
    return split


def _checked_unseen(names: list[str], known: Sequence[str]) -> list[str]:
    if not names:
        raise UserError("--unseen names no class. Without unseen classes there is nothing zero-shot about the split.")
    lower = {name.lower(): name for name in known}
    unknown = []
    for name in dict.fromkeys(names):
        if name not in known:
            near = [lower[other] for other in get_close_matches(name.lower(), lower, n=3)]
            unknown.append(repr(name) + (f" (did you mean {', '.join(near)}?)" if near else ""))
    if unknown:
        raise UserError(
            f"--unseen: not among the {len(known)} classes: {', '.join(unknown)}. Write the names as the annotation "
            "does, with commas between them, or name a file with one on each line."
        )
    return list(dict.fromkeys(names))


def _read_annotation(path: str) -> dict:
    content = read_json(path, "Annotation")
    annotations = content.get("annotations")
    panoptic = bool(annotations) and isinstance(annotations, list) and "segments_info" in str(annotations[0])
    if panoptic:
        check_panoptic(content, f"Annotation {path}", complete=False)
    else:
        check_instances({"images": [], **content}, f"Annotation {path}", complete=False)
    return content


def _read_categories(path: str) -> list:
    content = read_json(path, "Category list", object)
    categories = content.get("categories") if isinstance(content, dict) else content
    if not isinstance(categories, list):
        raise UserError(f"{path} must hold a list of categories, or an object with such a list as `categories`.")
    check_categories(categories, f"Category list {path}")
    return categories


def _merged_categories(lists: list[tuple[str, list]]) -> list[dict]:
    merged: dict[int, tuple[dict, str]] = {}
    for path, categories in lists:
        for category in categories:
            entry = {"id": category["id"], "name": category["name"], "isthing": category.get("isthing", 1)}
            if category.get("color") is not None:
                entry["color"] = category["color"]
            former, source = merged.setdefault(category["id"], (entry, path))
            if former["name"] != entry["name"]:
                raise UserError(
                    f"Category {category['id']} is {former['name']!r} in {source}, but {entry['name']!r} in {path}."
                )
    return sorted((entry for entry, _ in merged.values()), key=lambda entry: entry["id"])


def _with_commas(names: list[str], known: list[str]) -> list[str]:
    """Put names together that were split at their own commas: ["sofa", "couch"] is the class "sofa, couch"."""
    by_pieces = {tuple(piece.strip() for piece in name.split(",")): name for name in known}
    result, position = [], 0
    while position < len(names):
        for end in range(len(names), position, -1):
            name = by_pieces.get(tuple(piece.strip() for part in names[position:end] for piece in part.split(",")))
            if name is not None or end == position + 1:
                result.append(names[position] if name is None else name)
                position = end
                break
    return result


def _data_sets(name: str, role: str, paths: dict, content: dict | None, folder: str) -> list[dict]:
    subset = "seen" if role == "train" else "all"
    images = paths.get("images")
    if not images:
        if any(paths.values()):
            raise UserError(f"--{role}-images, the folder of the images, is missing.")
        return []
    common = {"role": role, "subset": subset, "image_root": _relative(images, folder)}
    made = []
    if content is not None and any("segments_info" in annotation for annotation in content["annotations"][:1]):
        if not paths.get("panoptic"):
            raise UserError(f"{paths['json']} is panoptic; --{role}-panoptic, the folder of its PNGs, is missing.")
        made.append(
            {
                "name": f"{name}_{role}_panoptic",
                "kind": "panoptic",
                **common,
                "panoptic_root": _relative(paths["panoptic"], folder),
                "panoptic_json": _relative(paths["json"], folder),
            }
        )
        if paths.get("instances"):
            made[0]["json"] = _relative(paths["instances"], folder)
        if paths.get("labels"):
            made[0]["sem_seg_root"] = _relative(paths["labels"], folder, must_exist=False)
    elif content is not None:
        made.append(
            {"name": f"{name}_{role}_instance", "kind": "instance", **common, "json": _relative(paths["json"], folder)}
        )
    if paths.get("labels"):
        # Listed order when panoptic sets share the label maps: theirs is always listed.
        order = {"class_order": "listed"} if made and made[0]["kind"] == "panoptic" else {}
        # The label maps may still have to be made, for which the split file is needed.
        labels = _relative(paths["labels"], folder, must_exist=False)
        made.append({"name": f"{name}_{role}_semantic", "kind": "semantic", **order, **common, "sem_seg_root": labels})
    return made


def _relative(path: str, folder: str, must_exist: bool = True) -> str:
    """``./`` relative to the split file when the path lies below its folder, else absolute."""
    path = os.path.abspath(os.path.expanduser(path))
    if must_exist and not os.path.exists(path):
        raise UserError(f"{path} does not exist.")
    below = os.path.relpath(path, folder)
    return path if below.startswith("..") else f"./{below}"


def _as_yaml(content: dict) -> str:
    text = [f"name: {_scalar(content['name'])}\n"]
    if "class_embeddings" in content:
        text.append(f"class_embeddings: {_scalar(content['class_embeddings'])}\n")
    text.append("categories:\n")
    text += [f"  - {_flow(category)}\n" for category in content["categories"]]
    text.append(f"unseen: {_flow(content['unseen'])}\n")
    text.append(yaml.safe_dump({"data_sets": content["data_sets"]}, sort_keys=False, allow_unicode=True, width=1000))
    return "".join(text)


def _flow(value) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6).strip()


def _scalar(value: str) -> str:
    return _flow([value])[1:-1]


def _report(split: Split, contents: dict[str, dict]) -> None:
    for role, content in contents.items():
        count = Counter(part["category_id"] for a in content["annotations"] for part in a.get("segments_info", (a,)))
        empty = [category.name for category in split.categories if not count[category.id]]
        if empty:
            logger.warning("No annotation in %s: %s", role, ", ".join(empty))
    logger.info("%s: %d seen and %d unseen classes", split.file, len(split.seen), len(split.unseen))
    trained = [data_set for data_set in split.data_sets if data_set.role == "train"]
    for train in trained:
        test = next((d for d in split.data_sets if d.role == "val" and d.kind == train.kind), None)
        if test is not None:
            logger.info("\n# %s\n%s", train.kind, "\n".join(_commands(split, train, test)))


def _commands(split: Split, train: DataSet, test: DataSet) -> list[str]:
    """Both stages of PADing and the conversion between them; classes are counted (NUM_CLASSES -1)."""
    config, out, file = f"configs/{train.kind}-segmentation", f"output/{split.name}_{train.kind}", _shown(split.file)
    files = repr((file,)) if set(file) & set(",()[]") else file
    data = ["DATASETS.SPLIT_FILES", files, "DATASETS.TRAIN", train.name, "DATASETS.TEST", test.name]
    data += ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "-1"]
    vectors = ["MODEL.MASK_FORMER.VEC_PATH", "None", "MODEL.CLASS_EMBEDDINGS"]
    vectors.append(_shown(split.class_embeddings) if split.class_embeddings else "VECTORS.npz")
    if len(split.vocabulary(train.kind, train.class_order)) > PUBLISHED_SEEN:
        vectors += ["MODEL.MASK_FORMER.SEEN_CLS_ONLY", "True"]
    stage_1, converted = f"{out}_1/model_final.pth", f"{out}_1/converted.pth"
    convert = ["--task_name", train.kind, "--split", file, "--input_file", stage_1, "--output_file", converted]
    lines = [
        ["train_net_pretrain.py", "--config-file", f"{config}/pretrain.yaml", *data, "OUTPUT_DIR", f"{out}_1"],
        ["tools/preprocess_pretrained_weight.py", *convert],
        ["train_net.py", "--config-file", f"{config}/PADing.yaml", *data, *vectors]
        + ["MODEL.WEIGHTS", converted, "OUTPUT_DIR", f"{out}_2"],
    ]
    return [shlex.join(["python", *line]) for line in lines]


def _shown(path: str) -> str:
    """A path as short as it can be from the current folder."""
    short = os.path.relpath(path)
    return path if short.startswith("..") else short


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, help="name of the split")
    parser.add_argument(
        "--unseen", required=True, help="names of unseen classes: comma separated, or a file, one a line"
    )
    parser.add_argument("--output", required=True, help="the split file to write (.yaml)")
    for role in ("train", "val"):
        parser.add_argument(f"--{role}-json", help="COCO instances or panoptic JSON")
        parser.add_argument(f"--{role}-images", help="folder of the images")
        parser.add_argument(f"--{role}-panoptic", help="folder of the panoptic PNGs")
        parser.add_argument(f"--{role}-instances", help="COCO instances JSON beside a panoptic one")
        parser.add_argument(f"--{role}-labels", help="folder of semantic label PNGs")
    parser.add_argument("--categories", help="JSON list of classes ({id, name, isthing}), for data without other JSON")
    parser.add_argument("--class-embeddings", default="", help="default file of class vectors (.npz)")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    train, val = (
        {key: getattr(args, f"{role}_{key}") for key in ("json", "images", "panoptic", "instances", "labels")}
        for role in ("train", "val")
    )

    def run() -> None:
        if os.path.isfile(args.unseen):
            unseen = read_names(args.unseen)
        else:
            unseen = [name.strip() for name in args.unseen.split(",") if name.strip()]
        make_split(args.name, unseen, args.output, train, val, args.class_embeddings, args.categories)

    return run_command(run)


if __name__ == "__main__":
    sys.exit(main())
