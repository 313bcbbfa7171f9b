"""Cityscapes: 500 validation images with the 19 classes of its evaluation; instances of 8 of them.

``*_gtFine_labelIds.png`` has the label id in each pixel. ``*_gtFine_instanceIds.png`` has 1000 * id + number for an
object of a class with instances, and the id alone for everything else: of such a class it is a group of objects, which
counts as a crowd. Labels that the official evaluation ignores are ignored.
"""

import numpy as np

from PADing.data.evaluation_sets.items import Item, Options, Region, Source, Truth, by_value, existing, refuse_missing
from PADing.data.images import CorruptFile, read_labels
from PADing.data.splits import Split

WHAT = "Cityscapes"
IMAGES, LABELS = "leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip"
NUMBER = 1000
LAST_ID = 33  # of labels.py


def source(options: Options) -> Source:
    """The files of ``cityscapes/``."""
    folder = existing(options.root / "cityscapes", WHAT, IMAGES)
    root = existing(folder / "leftImg8bit" / "val", WHAT, IMAGES)
    images = sorted(root.glob("*/*_leftImg8bit.png"))
    refuse_missing(WHAT, [root / "frankfurt" / "frankfurt_000000_000294_leftImg8bit.png"] if not images else [], IMAGES)
    existing(folder / "gtFine" / "val", WHAT, LABELS)
    items = []
    for image in images:
        below = image.relative_to(root)
        start = folder / "gtFine" / "val" / below.parent / below.name.removesuffix("_leftImg8bit.png")
        labels = tuple(start.with_name(f"{start.name}_gtFine_{kind}.png") for kind in ("labelIds", "instanceIds"))
        items.append(Item(below.as_posix(), image, labels))
    refuse_missing(WHAT, (path for item in items for path in item.labels), LABELS)
    return Source("cityscapes_19", folder / "prepared", tuple(items), read, f"{IMAGES} and {LABELS}")


def read(item: Item, split: Split) -> Truth:
    """Classes from the first PNG, objects and groups of objects from the second."""
    label_path, instance_path = item.labels
    table = np.full(LAST_ID + 1, -1)
    ids = [category.id for category in split.categories]
    table[ids] = ids
    classes = by_value(read_labels(label_path), table, label_path, WHAT)
    numbers = read_labels(instance_path).astype(np.int64)
    if classes.shape != numbers.shape:
        raise CorruptFile(f"{instance_path} has the size {numbers.shape}, but {label_path} has {classes.shape}.")
    things = {category.id for category in split.categories if category.isthing}
    objects = []
    for number in np.unique(numbers).tolist():
        category = number // NUMBER if number >= NUMBER else number
        if not 0 <= category <= LAST_ID:
            raise CorruptFile(f"{instance_path} has the value {number}, which {WHAT} does not have.")
        if category in things:
            objects.append(Region(category, numbers == number, crowd=number < NUMBER))
    return Truth(classes, objects)
