"""Makes a split file from COCO-format annotation and a list of unseen classes."""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

import yaml

from PADing.data.coco_schema import check_categories, check_instances, check_panoptic
from PADing.data.embeddings import making_command
from PADing.data.splits import Split, load_split, split_from_dict
from PADing.errors import UserError, did_you_mean
from PADing.files import read_json, replacing

logger = logging.getLogger(__name__)

Paths = Mapping[str, str | None]


def make_split(
    name: str,
    unseen: list[str],
    output: str,
    train: Paths,
    val: Paths,
    class_embeddings: str = "",
    categories: str | None = None,
) -> Split:
    """Write the split file ``output`` and return the split that it describes.

    Args:
        name: name of the split, and beginning of its data sets' names (``<name>_train_instance`` ...).
        unseen: names of unseen classes; a name that contains commas may be split at them.
        output: the split file.
        train: paths by ``json, images, panoptic, instances, labels``, see tools/make_split.py; None for missing ones.
        val: the same for validation.
        class_embeddings: file of class embeddings; you can make it later, from the split file.
        categories: a JSON file with the classes, for data without annotation JSON.

    Raises:
        UserError: wrong paths, classes or annotation; nothing is written then.
    """
    if not output.endswith((".yaml", ".yml")):
        raise UserError(f"--output {output} must end with .yaml.")
    folder, roles = os.path.dirname(os.path.abspath(output)), {"train": train, "val": val}
    contents = {role: _read_annotation(paths["json"]) for role, paths in roles.items() if paths.get("json")}
    lists = [(str(roles[role]["json"]), content["categories"]) for role, content in contents.items()]
    if categories:
        lists.append((categories, _read_categories(categories)))
    if not lists:
        raise UserError("The classes are unknown: give --train-json, --val-json or --categories.")
    classes = _merged_categories(lists)
    unseen = _checked_unseen(unseen, [entry["name"] for entry in classes])
    data_sets = []
    for role, paths in roles.items():
        data_sets += _data_sets(f"{name}_{role}", role, paths, contents.get(role), folder)
    if not data_sets:
        raise UserError("There is no data set: give --train-images or --val-images and their annotation.")
    content = {"name": name, "categories": classes, "unseen": unseen, "data_sets": data_sets}
    if class_embeddings:
        content["class_embeddings"] = _relative(class_embeddings, folder, must_exist=False)
    split_from_dict(content, os.path.abspath(output))  # check first, so that a mistake leaves no file behind
    with replacing(output) as temporary:
        temporary.write_text(_as_yaml(content), encoding="utf-8")
    split = load_split(output)
    for role, annotation in contents.items():
        parts = (part for a in annotation["annotations"] for part in a.get("segments_info", (a,)))
        count = Counter(part["category_id"] for part in parts)
        empty = [category.name for category in split.categories if not count[category.id]]
        if empty:
            logger.warning("No annotation in %s: %s", role, ", ".join(empty))
    if class_embeddings and not os.path.exists(split.class_embeddings):
        command = making_command(output, class_embeddings)
        logger.info("%s does not exist yet. Make it with: %s", class_embeddings, command)
    logger.info("%s: %d seen and %d unseen classes", output, len(split.seen), len(split.unseen))
    return split


def _is_panoptic(annotations: object) -> bool:
    return isinstance(annotations, list) and "segments_info" in str(annotations[:1])


def _read_annotation(path: str | None) -> dict:
    content = read_json(str(path), "Annotation")
    if _is_panoptic(content.get("annotations")):
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


def _merged_categories(lists: Sequence[tuple[str, list]]) -> list[dict]:
    merged: dict[int, tuple[dict, str]] = {}
    for path, categories in lists:
        for category in categories:
            color = {"color": category["color"]} if category.get("color") is not None else {}
            entry = {"id": category["id"], "name": category["name"], "isthing": category.get("isthing", 1), **color}
            former, source = merged.setdefault(category["id"], (entry, path))
            if former["name"] != entry["name"]:
                names = f"{former['name']!r} in {source}, but {entry['name']!r} in {path}"
                raise UserError(f"Category {category['id']} is {names}.")
    return [merged[category_id][0] for category_id in sorted(merged)]


def _checked_unseen(pieces: Sequence[str], known: Sequence[str]) -> list[str]:
    """The class names in ``pieces``; the pieces of a name with a comma are joined: couch, sofa -> "couch, sofa"."""
    if not pieces:
        raise UserError("--unseen names no class. A zero-shot split needs at least one unseen class.")
    pieces = [piece.strip() for item in pieces for piece in item.split(",")]
    by_pieces = {tuple(piece.strip() for piece in name.split(",")): name for name in known}
    names, unknown = [], []
    while pieces:
        length = next((n for n in range(len(pieces), 0, -1) if tuple(pieces[:n]) in by_pieces), 0)
        if length:
            names.append(by_pieces[tuple(pieces[:length])])
        else:
            unknown.append(repr(pieces[0]) + did_you_mean(pieces[0], known))
        del pieces[: length or 1]
    if unknown:
        raise UserError(
            f"--unseen: not among the {len(known)} classes: {', '.join(dict.fromkeys(unknown))}. Write the names as in "
            "the annotation, separated by commas, or give a file with one name on each line."
        )
    return list(dict.fromkeys(names))


def _data_sets(name: str, role: str, paths: Paths, content: dict | None, folder: str) -> list[dict]:
    """The entries of the split file for training or for validation."""
    if not paths.get("images"):
        if any(paths.values()):
            raise UserError(f"--{role}-images, the folder of the images, is missing.")
        return []
    for key in ("images", "panoptic", "labels"):
        if os.path.isfile(paths.get(key) or ""):
            raise UserError(f"--{role}-{key} {paths[key]} is a file. Name a folder.")
    # Label maps need not exist yet: the split file may be needed to make them.
    used = {key: _relative(path, folder, must_exist=key != "labels") for key, path in paths.items() if path}
    common = {"role": role, "subset": "seen" if role == "train" else "all", "image_root": used["images"]}
    made, labels = [], {"sem_seg_root": used["labels"]} if "labels" in used else {}
    if content is not None and _is_panoptic(content["annotations"]):
        if "panoptic" not in used:
            raise UserError(f"{paths['json']} is panoptic; --{role}-panoptic, the folder of its PNGs, is missing.")
        roots = {"panoptic_root": used["panoptic"], "panoptic_json": used["json"]}
        instances = {"json": used["instances"]} if "instances" in used else {}
        made.append({"name": f"{name}_panoptic", "kind": "panoptic", **common, **roots, **instances, **labels})
        common["class_order"] = "listed"  # as in the panoptic set, which uses the same label maps
    elif content is not None:
        made.append({"name": f"{name}_instance", "kind": "instance", **common, "json": used["json"]})
    if labels:
        made.append({"name": f"{name}_semantic", "kind": "semantic", **common, **labels})
    return made


def _relative(path: str, folder: str, must_exist: bool = True) -> str:
    """The path for the split file: relative with ``./`` if it is below the split file's folder, else absolute."""
    path = os.path.abspath(os.path.expanduser(path))
    if must_exist and not os.path.exists(path):
        raise UserError(f"{path} does not exist.")
    below = os.path.relpath(path, folder)
    return path if below.startswith("..") else f"./{below}"


def _as_yaml(content: Mapping) -> str:
    """The text of the split file, with one line per category."""
    dump = partial(yaml.safe_dump, sort_keys=False, allow_unicode=True, width=10**6)
    head = {key: content[key] for key in ("name", "class_embeddings") if key in content}
    categories = [f"  - {dump(category, default_flow_style=True)}" for category in content["categories"]]
    unseen = dump({"unseen": content["unseen"]}, default_flow_style=None)
    return f"{dump(head)}categories:\n{''.join(categories)}{unseen}{dump({'data_sets': content['data_sets']})}"
