"""A folder in which the pages' commands can be parsed and run: the repository's files, and a reader's data."""

import json
import shutil
from argparse import Namespace
from pathlib import Path

from tests.documents.pages import REPOSITORY
from tests.end_to_end.own_data import PLAIN, write_own_data

LINKED = (
    "PADing", "baselines", "configs", "d2lite", "d2zero", "demo", "docs", "examples", "frozenclip", "minibench",
    "models", "tests", "tools",
    "train_net.py", "train_net_pretrain.py", "Makefile", "pyproject.toml", "requirements.txt", "requirements-dev.txt",
    "requirements-docs.txt", "requirements-detectron2.txt",
)  # fmt: skip
# Folders into which commands write: they are real, their files are links.
SHARED = ("datasets", "embeddings/coco")


def make_working_copy(folder: Path) -> Path:
    """Fill ``folder``, which is empty or does not exist; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in LINKED:
        if (REPOSITORY / name).exists():
            (folder / name).symlink_to(REPOSITORY / name)
    for name in SHARED:
        (folder / name).mkdir(parents=True)
        for path in (REPOSITORY / name).iterdir():
            if path.name not in ("mini", "coco", "__pycache__"):
                (folder / name / path.name).symlink_to(path)
    return folder


def give_own_data(args: Namespace, folder: Path) -> None:
    """What a reader has before ``tools/make_split.py``, in the paths that its arguments name (below ``folder``).

    Label PNGs are not given: the pages say how they are made.
    """
    unseen = [name.strip() for name in args.unseen.split(",")]
    known = {category["name"] for category in PLAIN}
    categories = PLAIN + [
        {"id": 100 + number, "name": name, "isthing": 1} for number, name in enumerate(unseen) if name not in known
    ]
    source = folder / ".own"
    shutil.rmtree(source, ignore_errors=True)
    write_own_data(source, categories, unseen)
    for role in ("train", "val"):
        given = {key: getattr(args, f"{role}_{key}") for key in ("json", "images", "panoptic", "instances")}
        annotation = f"panoptic_{role}.json" if given["panoptic"] else f"{role}.json"
        parts = {"json": annotation, "images": f"images/{role}", "panoptic": f"panoptic/{role}"}
        for key, part in {**parts, "instances": f"{role}.json"}.items():
            if given[key]:
                _place(source / part, folder / given[key])
    if args.categories:
        _place(source / "classes.json", folder / args.categories)
    _place(source / "raw", folder / "raw")
    names = folder / "names.json"
    names.write_text(json.dumps([category["name"] for category in categories]), encoding="utf-8")


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)
