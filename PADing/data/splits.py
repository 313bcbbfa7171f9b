"""Split files: one YAML file defines the classes of a zero-shot protocol, which are unseen, and where the data are.

All code gets class counts, order, contiguous ids, and seen or unseen from here, through ``Split.class_space`` and the
metadata of the registered data sets. An example of a split file::

    name: my_split
    categories:                          # or the path of a YAML file with such a list, relative to this file
      - {id: 7, name: cat, isthing: 1, color: [255, 77, 255]}     # isthing (default 1) and color are optional
      - {id: 12, name: grass, isthing: 0}
    unseen: [cat]
    seen: [grass]                        # optional: every other category, in the order above
    class_order: seen_first              # or `listed`, as panoptic data sets always are; see Split.classes
    class_embeddings: ./my_own.npz       # optional: default of MODEL.CLASS_EMBEDDINGS
    data_sets:
      - name: my_train                   # the name for DATASETS.TRAIN or DATASETS.TEST
        role: train                      # or val
        kind: semantic                   # instance | panoptic | semantic
        subset: seen                     # seen | all | unseen: the classes that it shows
        image_root: mine/images          # relative to $DETECTRON2_DATASETS; to this file if it begins with ./
        sem_seg_root: ./labels

With ``evaluation_only: true`` no model is trained on the split: a model of other classes predicts these by name.
Categories may have ``synonyms`` then, and data sets ``images``, the number of images of the release.

``instance`` needs ``image_root, json``; ``panoptic`` needs ``image_root, panoptic_root, panoptic_json`` (and for
semantic and instance metrics ``sem_seg_root``, ``json``); ``semantic`` needs ``image_root, sem_seg_root``. With
``classes_only: true`` data sets have no paths: such a file comes with a shared model.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from PADing.class_space import ClassSpace
from PADing.data.categories import Category, check_keys, check_unique, checked_text, read_categories
from PADing.data.class_names import distinct_names
from PADing.errors import UserError, did_you_mean, short
from PADing.files import REPOSITORY, or_shipped
from PADing.yaml_files import read_yaml

IGNORE_LABEL = 255
LABEL_DIVISOR = 1000
ROLES = ("train", "val")
SUBSETS = ("seen", "all", "unseen")
CLASS_ORDERS = ("seen_first", "listed")
NEEDED_PATHS = {
    "instance": ("image_root", "json"),
    "panoptic": ("image_root", "panoptic_root", "panoptic_json"),
    "semantic": ("image_root", "sem_seg_root"),
}
_PATHS = {"image_root", "json", "panoptic_root", "panoptic_json", "sem_seg_root", "made_by"}
DEFAULT_EVALUATOR = {"instance": "coco_instance_gzero", "panoptic": "coco_panoptic_seg", "semantic": "sem_seg_gzero"}


@dataclass(frozen=True)
class DataSet:
    """One data set of a split: images and labels of one kind, as they are registered under ``name``."""

    name: str
    role: str
    kind: str
    subset: str
    class_order: str
    evaluator: str
    image_root: str
    json: str = ""
    panoptic_root: str = ""
    panoptic_json: str = ""
    sem_seg_root: str = ""
    made_by: str = ""  # the command that makes the annotation, for the message when a file is missing
    images: tuple[int, ...] = ()  # how many images the release has; several numbers for several releases

    def paths(self) -> dict[str, str]:
        """The paths that are set, by key, as written in the split file."""
        keys = ("image_root", "json", "panoptic_root", "panoptic_json", "sem_seg_root")
        return {key: getattr(self, key) for key in keys if getattr(self, key)}


@dataclass(frozen=True)
class Split:
    """A zero-shot protocol: categories, names of the seen and unseen ones in order, and data sets."""

    name: str
    file: str
    categories: tuple[Category, ...]
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    data_sets: tuple[DataSet, ...]
    class_embeddings: str = ""
    evaluation_only: bool = False

    def names_to_embed(self) -> tuple[str, ...]:
        """The names of all seen and unseen classes, then the synonyms that stand for one class alone."""
        by_name = {category.name: category for category in self.categories}
        used = [by_name[name] for name in (*self.seen, *self.unseen)]
        names = distinct_names([(category.name, *category.synonyms) for category in used])
        return (*(own[0] for own in names), *(name for own in names for name in own[1:]))

    def data_set(self, name: str) -> DataSet:
        """The data set called ``name``; UserError if there is none."""
        for data_set in self.data_sets:
            if data_set.name == name:
                return data_set
        raise UserError(f"Split {self.name} has no data set {name!r}; it has {[d.name for d in self.data_sets]}.")

    def vocabulary(self, kind: str, class_order: str) -> list[Category]:
        """All classes, seen and unseen, of a model for ``kind``, in the order of its outputs.

        ``seen_first``: the seen, then the unseen classes, each in the order of its list. ``listed``: in the order of
        ``categories``, things before stuff, so that a thing has the same contiguous id among the things as among all
        classes. Classes that are neither seen nor unseen are left out; stuff is left out for ``instance``.
        """
        by_name = {category.name: category for category in self.categories}
        if class_order == "seen_first":
            classes = [by_name[name] for name in (*self.seen, *self.unseen)]
        else:
            used = {*self.seen, *self.unseen}
            classes = [category for category in self.categories if category.name in used]
            classes.sort(key=lambda category: not category.isthing)
        if kind == "instance":
            classes = [category for category in classes if category.isthing]
        return classes

    def classes(self, data_set: DataSet) -> list[Category]:
        """The classes of one data set; the contiguous id is the position in this list.

        With ``seen_first`` order, the list has only the classes of the data set's subset. A seen class then has the
        same contiguous id in the training set as in the generalized validation set. With ``listed`` order, unseen
        classes are between seen ones, so every data set has the whole list.
        """
        classes = self.vocabulary(data_set.kind, data_set.class_order)
        if data_set.class_order == "listed" or data_set.subset == "all":
            return classes
        wanted = set(self.seen if data_set.subset == "seen" else self.unseen)
        return [category for category in classes if category.name in wanted]

    def class_space(self, data_set: DataSet) -> ClassSpace:
        """The classes of one data set, with the vocabulary of the split."""
        vocabulary, classes = self.vocabulary(data_set.kind, data_set.class_order), self.classes(data_set)
        unseen = set(self.unseen)
        only_unseen = data_set.subset == "unseen" and data_set.class_order == "seen_first"
        return ClassSpace(
            data_set=data_set.name,
            kind=data_set.kind,
            names={i: category.name for i, category in enumerate(classes)},
            dataset_ids={i: category.id for i, category in enumerate(classes)},
            things=frozenset(i for i, c in enumerate(classes) if c.isthing and data_set.kind != "semantic"),
            vocabulary=tuple(category.name for category in vocabulary),
            unseen_names=tuple(category.name for category in vocabulary if category.name in unseen),
            subset=data_set.subset,
            offset=len(vocabulary) - len(classes) if only_unseen else 0,
            evaluation_only=self.evaluation_only,
            synonyms={i: category.synonyms for i, category in enumerate(classes) if category.synonyms},
        )

    def metadata(self, data_set: DataSet, root: str | None = None) -> dict[str, Any]:
        """The entries of ``data_set`` in ``MetadataCatalog``; paths are under ``root`` (``$DETECTRON2_DATASETS``).

        Besides the fields of Detectron2's data sets of this kind and those of :class:`ClassSpace`, they are:
            val_extra_classes: names of the unseen classes, in data sets with semantic labels that show them.
            class_embeddings: the split's default embedding file, or "".
            split_file: path of the split file.
        """
        space = self.class_space(data_set)
        colors = [list(category.color) for category in self.classes(data_set)]
        paths = {key: _under(path, self.file, root) for key, path in data_set.paths().items()}
        entry: dict[str, Any] = {
            **space.to_metadata(),
            **{"json_file" if key == "json" else key: path for key, path in paths.items()},
            "evaluator_type": data_set.evaluator,
            "class_embeddings": self.class_embeddings,
            "split_file": self.file,
        }
        if data_set.kind != "semantic":
            entry["thing_colors"] = [colors[i] for i in sorted(space.things)]
        if data_set.kind != "instance":
            entry["ignore_label"] = IGNORE_LABEL
            entry["stuff_colors"] = colors
        if data_set.kind == "panoptic":
            entry["label_divisor"] = LABEL_DIVISOR
        if "sem_seg_root" in paths and data_set.subset != "seen":
            entry["val_extra_classes"] = list(space.unseen_names)
        return entry


def dataset_root() -> str:
    """The folder of all data: ``$DETECTRON2_DATASETS``, by default ``datasets``."""
    return os.path.expanduser(os.environ.get("DETECTRON2_DATASETS", "datasets"))


def shipped_split_files() -> list[str]:
    """The split files of protocols (``datasets/splits/*.yaml``), sorted; empty if the install has none."""
    return sorted(str(path) for path in (REPOSITORY / "datasets" / "splits").glob("*.yaml"))


def evaluation_split_files() -> list[str]:
    """The split files of data sets for evaluation alone (``datasets/splits/evaluation/*.yaml``), sorted."""
    return sorted(str(path) for path in (REPOSITORY / "datasets" / "splits" / "evaluation").glob("*.yaml"))


def mini2_split_files() -> list[str]:
    """The split files of the mini data, version 2 (``datasets/splits/mini2/*.yaml``), sorted."""
    return sorted(str(path) for path in (REPOSITORY / "datasets" / "splits" / "mini2").glob("*.yaml"))


def load_split(path: str | os.PathLike) -> Split:
    """Read and check one split file; UserError names the file and the key, id or class name that is wrong."""
    path = os.path.abspath(or_shipped(os.path.expanduser(os.fspath(path))))
    return split_from_dict(read_yaml(path, "Split file"), path)


def split_from_dict(content: Mapping, file: str) -> Split:
    """Make a split from the content of a split file; UserError for mistakes.

    ``file``: the split file, for messages; ``./`` paths and the path of a category table are relative to it.
    """
    where = f"Split file {file}"
    if not isinstance(content, Mapping):
        raise UserError(f"{where} must be a mapping with name, categories, unseen and data_sets.")
    check_keys(content, {f.name for f in fields(Split)} - {"file"} | {"class_order", "classes_only"}, where)
    evaluation_only = content.get("evaluation_only", False)
    if not isinstance(evaluation_only, bool):
        raise UserError(f"{where}: evaluation_only must be true or false, but is {short(evaluation_only)}.")
    for key in ("name", "categories", "unseen", "data_sets"):
        if key not in content:
            raise UserError(f"{where} lacks the key `{key}`.")
    name = checked_text(content["name"], f"{where}: name")
    if content.get("class_embeddings") is not None:
        checked_text(content["class_embeddings"], f"{where}: class_embeddings")
    categories = read_categories(content["categories"], file)
    known = [category.name for category in categories]
    unseen = _names(content["unseen"], known, f"{where}: unseen")
    if content.get("seen") is None:
        seen = tuple(name for name in known if name not in set(unseen))
    else:
        seen = _names(content["seen"], known, f"{where}: seen")
    both = sorted(set(seen) & set(unseen))
    if both:
        raise UserError(f"{where}: {both} are in both `seen` and `unseen`. Remove them from one list.")
    if not seen:
        raise UserError(f"{where}: there is no seen class to train on. Remove some classes from `unseen`.")
    default_order = content.get("class_order")
    if default_order is not None:
        _choice(content, "class_order", CLASS_ORDERS, where)
    if not isinstance(content["data_sets"], list):
        raise UserError(f"{where}: `data_sets` must be a list.")
    data_sets = tuple(
        _data_set(entry, default_order, f"{where}: data_sets[{i}]", content.get("classes_only") is True)
        for i, entry in enumerate(content["data_sets"])
    )
    check_unique([d.name for d in data_sets], f"{where}: data set name")
    class_embeddings = _beside(content.get("class_embeddings") or "", file)
    split = Split(name, file, categories, seen, unseen, data_sets, class_embeddings, evaluation_only)
    if evaluation_only:
        _check_evaluation_only(split, where)
    for data_set in data_sets:
        if not split.classes(data_set):
            kind = f"{data_set.kind}, subset {data_set.subset}"
            raise UserError(f"{where}: data set {data_set.name} ({kind}) has no class.")
    return split


def _check_evaluation_only(split: Split, where: str) -> None:
    if split.unseen:
        raise UserError(f"{where}: with evaluation_only the model says which classes are unseen. Write `unseen: []`.")
    for data_set in split.data_sets:
        if data_set.role != "val" or data_set.subset != "all":
            wrong = f"data set {data_set.name} has the role {data_set.role} and the subset {data_set.subset}"
            raise UserError(f"{where}: with evaluation_only all data sets are `role: val`, `subset: all`, but {wrong}.")


def _data_set(entry: Any, default_order: str | None, where: str, classes_only: bool) -> DataSet:
    if not isinstance(entry, dict):
        raise UserError(f"{where} must be a mapping with name, role, kind and paths, but is {short(entry)}.")
    name = checked_text(entry.get("name"), f"{where}: name")
    where = f"{where} ({name})"
    check_keys(entry, {f.name for f in fields(DataSet)} - (_PATHS if classes_only else set()), where)
    kind = _choice(entry, "kind", NEEDED_PATHS, where)
    if set(name) & {"/", "\\", "\0"} or name.startswith("."):
        raise UserError(f"{where}: a folder gets the name, so it must not begin with a dot or contain a slash.")
    for key, value in entry.items():
        if value is not None and value != "" and key != "images":
            checked_text(value, f"{where}: {key}")
    for key in () if classes_only else NEEDED_PATHS[kind]:
        if not entry.get(key):
            raise UserError(f"{where}: a data set of kind {kind} needs the path `{key}`.")
    role = _choice(entry, "role", ROLES, where)
    values = {key: value for key, value in entry.items() if value is not None}
    values["subset"] = _choice(entry, "subset", SUBSETS, where, "seen" if role == "train" else "all")
    # Panoptic lists have things, then stuff, so unseen classes cannot come last.
    if kind == "panoptic":
        default_order = "listed"
    values["class_order"] = _choice(entry, "class_order", CLASS_ORDERS, where, default_order or "seen_first")
    if kind == "panoptic" and values["class_order"] != "listed":
        raise UserError(f"{where}: a panoptic data set needs `class_order: listed` (things, then stuff).")
    values.setdefault("evaluator", DEFAULT_EVALUATOR[kind])
    numbers = values.get("images", [])
    values["images"] = tuple(numbers) if isinstance(numbers, list) else (numbers,)
    if any(isinstance(number, bool) or not isinstance(number, int) or number < 1 for number in values["images"]):
        raise UserError(f"{where}: images must be a number of at least 1, or a list of such, but is {short(numbers)}.")
    return DataSet(**{"image_root": "", **values})


def _choice(entry: Mapping, key: str, allowed: Iterable[str], where: str, default: str | None = None) -> str:
    value = entry.get(key) or default
    if value not in tuple(allowed):
        raise UserError(f"{where}: `{key}` must be one of {', '.join(allowed)}, but is {short(value)}.")
    return value


def _names(content, known: list[str], where: str) -> tuple[str, ...]:
    if not isinstance(content, list):
        raise UserError(f"{where} must be a list of category names.")
    for name in content:
        checked_text(name, where)
        if name not in known:
            hint = did_you_mean(name, known)
            raise UserError(f"{where} names {short(name)}, which is not the name of a category{hint}.")
    check_unique(content, where)
    return tuple(content)


def _beside(path: str, file: str) -> str:
    return os.path.join(os.path.dirname(file), path[2:]) if path.startswith("./") else path


def _under(path: str, file: str, root: str | None) -> str:
    if path.startswith("./"):
        return _beside(path, file)
    # os.path.join keeps an absolute path as it is.
    return os.path.join(dataset_root() if root is None else root, os.path.expanduser(path))
