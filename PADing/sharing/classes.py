"""The classes of a shared model: written as a split file without paths, and registered without data on disk."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

from PADing.class_space import ClassSpace
from PADing.data.registration import register_split
from PADing.data.splits import DataSet, Split, split_from_dict
from PADing.errors import UserError
from PADing.files import replacing
from PADing.yaml_files import read_yaml

_DIGEST = re.compile(r"@[0-9a-f]{8}$")  # of a name that ``register_classes`` has made


def write_classes(path: Path, split: Split, data_sets: Sequence[DataSet]) -> None:
    """Write the classes of a split and of some data sets of it, without any path."""
    kept = ("role", "kind", "subset", "class_order", "evaluator")
    content = {
        "name": split.name,
        "classes_only": True,
        "categories": [
            {"id": c.id, "name": c.name, "isthing": int(c.isthing), "color": list(c.color)} for c in split.categories
        ],
        "seen": list(split.seen),
        "unseen": list(split.unseen),
        "data_sets": [{"name": plain_name(d.name), **{key: getattr(d, key) for key in kept}} for d in data_sets],
    }
    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def read_classes(path: Path) -> Split:
    """Read a file of ``write_classes``; UserError for mistakes, and for paths in it."""
    content = read_yaml(path, "Split file", foreign=True)
    if not isinstance(content, dict) or content.get("classes_only") is not True:
        raise UserError(f"Split file {path} must hold `classes_only: true`, as that of a shared model does.")
    if isinstance(content.get("categories"), str) or content.get("class_embeddings"):
        raise UserError(f"Split file {path} names another file. That of a shared model has its classes inside.")
    return split_from_dict(content, str(path))


def register_classes(split: Split) -> dict[str, str]:
    """Register the data sets of a shared model's split; returns the registered name of each.

    A registered data set of the same name and classes is used as it is, so the model can be evaluated at once where its
    data are known. Otherwise the name gets a suffix made of the classes, so that it never hides a data set.
    """
    names = {}
    for data_set in split.data_sets:
        name = data_set.name
        if not _registered_equally(name, split, data_set):
            name = f"{data_set.name}@{_digest(split, data_set)}"
            if name not in DatasetCatalog:
                own = dataclasses.replace(data_set, name=name)
                register_split(dataclasses.replace(split, data_sets=(own,)))
        names[data_set.name] = name
    return names


def plain_name(name: str) -> str:
    """The name of a data set without the suffix of ``register_classes``."""
    return _DIGEST.sub("", name)


def _registered_equally(name: str, split: Split, data_set: DataSet) -> bool:
    if name not in DatasetCatalog or name not in MetadataCatalog.list():
        return False
    metadata, own = MetadataCatalog.get(name), split.metadata(data_set)
    try:
        same = ClassSpace.of(metadata).to_metadata() == split.class_space(data_set).to_metadata()
    except UserError:
        return False
    return same and all(metadata.get(key) == own.get(key) for key in ("thing_colors", "stuff_colors"))


def _digest(split: Split, data_set: DataSet) -> str:
    space: dict[str, Any] = split.class_space(data_set).to_metadata()
    colors = [list(category.color) for category in split.classes(data_set)]
    text = json.dumps([space, colors, data_set.evaluator], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
