"""PASCAL Context: 5,105 validation images of VOC 2010 with the 59 most frequent of 459 classes.

The official annotation is a ``.mat`` for each image, whose ``LabelMap`` has the class 1..459 of labels.txt in each
pixel. There are PNGs of the 59 classes, too, official ones and those of other programs. Their values follow different
orders, so a file must say which name each value has: 59_labels.txt for the official ones. Pixels of other classes are
ignored.
"""

import re
from functools import partial
from pathlib import Path

import numpy as np

from PADing.data.class_names import normalized
from PADing.data.evaluation_sets.items import (
    Item,
    Options,
    Source,
    Truth,
    by_value,
    existing,
    image_list,
    refuse_missing,
)
from PADing.data.images import CorruptFile, read_labels
from PADing.data.splits import Split, evaluation_split_files, load_split
from PADing.errors import UserError

WHAT = "PASCAL Context"
IMAGES, LABELS = "VOCtrainval_03-May-2010.tar", "trainval.tar.gz"
LAST_ID = 459
VOID = 255


def source(options: Options) -> Source:
    """The files of ``VOCdevkit/VOC2010/``, and of the folder of labels."""
    folder = existing(options.root / "VOCdevkit" / "VOC2010", WHAT, IMAGES)
    labels = existing(options.labels or folder / "trainval", WHAT, LABELS)
    listed = image_list(options.images or folder / "ImageSets" / "Main" / "val.txt", WHAT, IMAGES)
    suffix = ".mat" if any(labels.glob("*.mat")) else ".png"
    if suffix == ".png" and not any(labels.glob("*.png")):
        raise UserError(f"{WHAT}: {labels} has neither .mat files nor PNGs. Unpack {LABELS} there.")
    if (options.names is None) == (suffix == ".png"):
        raise UserError(
            f"{WHAT}: {labels} has PNGs, whose values follow different orders of classes. Name the file that says "
            "which: --names 59_labels.txt for the official PNGs (lines such as `1: aeroplane`)."
            if suffix == ".png"
            else f"{WHAT}: {labels} has .mat files, whose numbers are those of labels.txt. Leave out --names."
        )
    items = tuple(
        Item(f"{name}.jpg", folder / "JPEGImages" / f"{name}.jpg", (labels / f"{name}{suffix}",)) for name in listed
    )
    refuse_missing(WHAT, (item.image for item in items), IMAGES)
    refuse_missing(WHAT, (path for item in items for path in item.labels), labels.name if suffix == ".png" else LABELS)
    values = read_values(options.names) if options.names else {}
    read = partial(read_png, values=values) if values else read_mat
    settings = {"values": {str(value): name for value, name in sorted(values.items())}}
    return Source("context_59", folder / "prepared_context", items, read, f"{IMAGES} and {LABELS}", settings)


def read_values(path: Path) -> dict[int, str]:
    """Value -> class name of the split, from lines such as ``1: aeroplane``.

    UserError for other lines, names that are none of the 59 classes, and classes that are missing.
    """
    refuse_missing(WHAT, [path], "59_labels.txt")
    split = load_split(next(file for file in evaluation_split_files() if Path(file).stem == "context_59"))
    known = {normalized(name): c.name for c in split.categories for name in (c.name, *c.synonyms)}
    values: dict[int, str] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.strip():
            continue
        parts = re.fullmatch(r"\s*(\d+)\s*[:=\s]\s*(.+?)\s*", line)
        name = known.get(normalized(parts[2])) if parts else None
        if parts and int(parts[1]) in (0, VOID) and name is None:
            continue  # the background
        if parts is None or name is None or int(parts[1]) in values or not 0 < int(parts[1]) < VOID:
            expected = "`1: aeroplane` is expected, each value once"
            raise UserError(f"{WHAT}: {path} has the line {line.strip()!r}; {expected}.")
        values[int(parts[1])] = name
    if missing := sorted({c.name for c in split.categories} - set(values.values())):
        raise UserError(f"{WHAT}: {path} has no value for {', '.join(missing[:5])}. All 59 classes must be there.")
    return values


def read_mat(item: Item, split: Split) -> Truth:
    """Classes from a ``.mat`` with the numbers of labels.txt."""
    from scipy.io import loadmat

    path = item.labels[0]
    try:
        labels = loadmat(str(path), variable_names=["LabelMap"])["LabelMap"]
        if labels.ndim != 2 or labels.dtype.kind not in "iu":
            raise ValueError(f"LabelMap has the shape {labels.shape} and the type {labels.dtype}")
    except Exception as error:  # SciPy raises many types for damaged files
        reason = "it has no LabelMap" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise CorruptFile(f"{path} cannot be read ({reason}).") from error
    table = np.full(LAST_ID + 1, -1)
    ids = [category.id for category in split.categories]
    table[ids] = ids
    return Truth(by_value(labels.astype(np.int64), table, path, WHAT))


def read_png(item: Item, split: Split, values: dict[int, str]) -> Truth:
    """Classes from a PNG whose values have the names in ``values``; 0 and 255 are ignored."""
    ids = {category.name: category.id for category in split.categories}
    table = np.full(VOID + 1, -2)
    table[[0, VOID]] = -1
    for value, name in values.items():
        table[value] = ids[name]
    return Truth(by_value(read_labels(item.labels[0]), table, item.labels[0], "the file of names"))
