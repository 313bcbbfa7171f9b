"""ADE20K, SceneParse150: 2,000 validation images with 150 classes; instances of 100 of them.

``annotations/validation/*.png`` has the class 1..150 in each pixel, 0 for other objects. In
``annotations_instance/validation/*.png``, red is the number 1..100 of the class among the things, green the object's
number in its image (0: none). The things are numbered in the order of their class ids.
"""

from pathlib import Path

import numpy as np

from PADing.data.evaluation_sets.items import Item, Options, Region, Source, Truth, by_value, existing, refuse_missing
from PADing.data.images import CorruptFile, read_image, read_labels
from PADing.data.splits import Split

WHAT = "ADE20K"
IMAGES, INSTANCES = "ADEChallengeData2016.zip", "annotations_instance.tar"


def source(options: Options) -> Source:
    """The files of ``ADEChallengeData2016/``."""
    folder = existing(options.root / "ADEChallengeData2016", WHAT, IMAGES)
    images = sorted(existing(folder / "images" / "validation", WHAT, IMAGES).glob("ADE_val_*.jpg"))
    refuse_missing(WHAT, [folder / "images" / "validation" / "ADE_val_00000001.jpg"] if not images else [], IMAGES)
    labels = [folder / "annotations" / "validation" / f"{path.stem}.png" for path in images]
    instances = [folder / "annotations_instance" / "validation" / f"{path.stem}.png" for path in images]
    refuse_missing(WHAT, labels, IMAGES)
    existing(folder / "annotations_instance", WHAT, INSTANCES)
    refuse_missing(WHAT, instances, INSTANCES)
    items = tuple(Item(i.name, i, (a, b)) for i, a, b in zip(images, labels, instances, strict=True))
    return Source("ade20k_150", folder / "prepared", items, read, f"{IMAGES} and {INSTANCES}")


def read(item: Item, split: Split) -> Truth:
    """Classes from the first PNG, objects from the second."""
    ids = [category.id for category in split.categories]
    table = np.full(max(ids) + 1, -2)
    table[[0, *ids]] = [-1, *ids]
    classes = by_value(read_labels(item.labels[0]), table, item.labels[0], WHAT)
    return Truth(classes, _objects(item.labels[1], sorted(c.id for c in split.categories if c.isthing)))


def _objects(path: Path, things: list[int]) -> list[Region]:
    rgb = read_image(path)
    category, number = rgb[:, :, 0].astype(np.int64), rgb[:, :, 1].astype(np.int64)
    pairs = np.unique((number * 256 + category)[number > 0])
    numbers, categories = pairs // 256, pairs % 256
    if len(set(numbers.tolist())) < len(pairs):
        raise CorruptFile(f"{path}: an object has pixels of several classes, so the file is damaged or of another set.")
    if wrong := [int(c) for c in categories if not 1 <= c <= len(things)]:
        raise CorruptFile(
            f"{path} has an object of the class {wrong[0]}, but the instance annotation of {WHAT} has the classes "
            f"1..{len(things)}. Is it a file of another set?"
        )
    return [Region(things[c - 1], number == n) for n, c in zip(numbers.tolist(), categories.tolist(), strict=True)]
