"""The val2017 protocol: COCO's 5,000 validation images alone, four fifths of them for training (docs/val2017.md).

The lists follow from a rule and from ``instances_val2017.json``. Rule, version 1:

1. The key of an image is the SHA-256 of ``PADing val2017 1 <id>``. Images are taken in the order of their keys.
2. For each unseen thing of the 48/17 split and then of the 119/14 split, in the order of the categories, images that
   show it (no crowd region) become validation images until ten of them do, or all.
3. Further images become validation images until these are a fifth of all, rounded down. The others are for training.

Step 2 stops, too, when the validation images are a fifth of all.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PADing.data.coco_schema import check_instances, check_panoptic
from PADing.data.preparation import read_annotation
from PADing.data.splits import Split
from PADing.errors import UserError
from PADing.files import write_json

__all__ = ["FOLDER", "IMAGES", "LISTS", "choose", "lists_hash", "make_lists", "write_parts"]

FOLDER, LISTS = "val2017_zero_shot", "lists.json"
IMAGES = 5000
VERSION = 1
LEAST = 10  # validation images of each unseen thing
SHARE = 5  # one in so many images is a validation image
_DOWNLOADS = "docs/val2017.md says what to download, and where it must lie"


def choose(images: Sequence[int], shown: Sequence[Iterable[int]]) -> tuple[list[int], list[int]]:
    """The sorted ids of training and validation images, by the rule of the module.

    Args:
        images: ids of all images, in any order.
        shown: for each unseen class the ids of the images that show it.
    """
    order = sorted(images, key=_key)
    most, chosen = len(order) // SHARE, set[int]()
    for members in map(set, shown):
        for image in order:
            if len(chosen & members) >= LEAST or len(chosen) >= most:
                break
            if image in members:
                chosen.add(image)
    for image in order:
        if len(chosen) >= most:
            break
        chosen.add(image)
    return sorted(set(order) - chosen), sorted(chosen)


def _key(image: int) -> bytes:
    return hashlib.sha256(f"PADing val2017 {VERSION} {image}".encode()).digest()


def lists_hash(train: Sequence[int], val: Sequence[int]) -> str:
    """SHA-256 of both lists, to compare between users."""
    return hashlib.sha256(json.dumps([list(train), list(val)]).encode()).hexdigest()


def make_lists(coco: Path, splits: Sequence[Split], subset: bool = False) -> tuple[dict[str, Any], dict]:
    """Read and check the instance annotation and the image folder, and apply the rule.

    Args:
        coco: the folder of COCO.
        splits: those whose unseen things count.
        subset: take the images that are there, however few; for a trial.

    Returns:
        the content of ``lists.json``; the annotation.

    Raises:
        UserError: a missing, damaged or other annotation file, missing images.
    """
    path = coco / "annotations" / "instances_val2017.json"
    if not path.is_file():
        raise UserError(f"{path} does not exist. It is in annotations_trainval2017.zip. {_DOWNLOADS}.")
    content = read_annotation(path, "COCO annotation", check_instances)
    _check_year(content, path)
    ids = [image["id"] for image in content["images"]]
    if not all(type(number) is int for number in ids):
        raise UserError(f"{path}: image ids must be numbers, as in COCO's own file. {_DOWNLOADS}.")
    if len(ids) != IMAGES and not subset:
        raise UserError(
            f"{path} lists {len(ids):,} images, but COCO's val2017 has {IMAGES:,}. {_DOWNLOADS}. For a trial with "
            "fewer, add --subset."
        )
    present = _present(content["images"], coco / "val2017", subset)
    by_name = {category["name"]: category["id"] for category in content["categories"]}
    things = [c.name for split in splits for c in split.categories if c.isthing and c.name in split.unseen]
    if missing := [name for name in things if name not in by_name]:
        raise UserError(f"{path} has no category called {', '.join(missing[:5])}: it is not COCO's. {_DOWNLOADS}.")
    members: dict[int, set[int]] = {}
    for entry in content["annotations"]:
        if not entry.get("iscrowd", 0) and entry["image_id"] in present:
            members.setdefault(entry["category_id"], set()).add(entry["image_id"])
    train, val = choose(sorted(present), [members.get(by_name[name], set()) for name in dict.fromkeys(things)])
    if not train or not val:
        raise UserError(f"{coco / 'val2017'} has {len(present)} images, too few for two lists. {_DOWNLOADS}.")
    lists = {"rule": VERSION, "complete": len(present) == IMAGES, "sha256": lists_hash(train, val)}
    return {**lists, "train": train, "val": val}, content


def _check_year(content: Mapping, path: Path) -> None:
    year = content.get("info", {}).get("year") if isinstance(content.get("info", {}), dict) else None
    names = [image.get("file_name", "") for image in content["images"]]
    if year not in (None, 2017) or any(name.startswith("COCO_") for name in names):
        found = year or "2014"
        raise UserError(
            f"{path} is of the year {found}, but val2017 is needed: other years have other files. {_DOWNLOADS}."
        )
    if not names:
        raise UserError(f"{path} lists no image. Is the download complete? {_DOWNLOADS}.")


def _present(images: Sequence[Mapping], folder: Path, subset: bool) -> set[int]:
    """The ids of the images whose files are there."""
    try:
        files = set(os.listdir(folder))
    except OSError as error:
        raise UserError(f"The image folder {folder} cannot be read: {error.strerror}. {_DOWNLOADS}.") from error
    absent = [image["file_name"] for image in images if image.get("file_name") not in files]
    if absent and (not subset or len(absent) == len(images)):
        which = f"{len(absent):,} of {len(images):,} images are missing in {folder}, such as {absent[0]}"
        raise UserError(f"{which}. Unpack val2017.zip there. {_DOWNLOADS}.")
    return {image["id"] for image in images if image["file_name"] in files}


def write_parts(content: Mapping, lists: Mapping, output: Path, kind: str) -> None:
    """Write ``<kind>_train.json`` and ``<kind>_val.json``: the annotation of the images of each list.

    Args:
        content: COCO's instance or panoptic annotation.
        lists: see ``make_lists``.
        output: the folder.
        kind: "instances" or "panoptic".
    """
    for part in ("train", "val"):
        kept = set(lists[part])
        chosen = {
            **content,
            "images": [image for image in content["images"] if image["id"] in kept],
            "annotations": [entry for entry in content["annotations"] if entry["image_id"] in kept],
        }
        write_json(output / f"{kind}_{part}.json", chosen)


def read_panoptic(coco: Path, lists: Mapping) -> dict:
    """The panoptic annotation; UserError if the file or the PNG of an image is missing."""
    path, folder = coco / "annotations" / "panoptic_val2017.json", coco / "panoptic_val2017"
    if not path.is_file():
        raise UserError(f"{path} does not exist. It is in panoptic_annotations_trainval2017.zip. {_DOWNLOADS}.")
    content = read_annotation(path, "Panoptic annotation", check_panoptic)
    _check_year({"images": [], **content}, path)
    wanted = {*lists["train"], *lists["val"]}
    found = {entry["image_id"]: entry["file_name"] for entry in content["annotations"]}
    if lacking := sorted(wanted - found.keys()):
        raise UserError(f"{path} lacks {len(lacking):,} of the images, such as {lacking[0]}. {_DOWNLOADS}.")
    files = set(os.listdir(folder)) if folder.is_dir() else set()
    if absent := [found[image] for image in sorted(wanted) if found[image] not in files]:
        where = f"{len(absent):,} PNGs are missing in {folder}, such as {absent[0]}"
        raise UserError(f"{where}. Unpack panoptic_val2017.zip, which is inside the panoptic zip, there. {_DOWNLOADS}.")
    return content
