"""PASCAL VOC 2012: 1,449 validation images with 20 classes, their semantic maps and instances.

The value in ``SegmentationClass`` is the class 1..20, in ``SegmentationObject`` the object's number. 0 is background,
255 the border; both are ignored, which the field calls VOC-20.
"""

import numpy as np

from PADing.data.evaluation_sets.items import (
    Item,
    Options,
    Region,
    Source,
    Truth,
    by_value,
    existing,
    image_list,
    refuse_missing,
)
from PADing.data.images import CorruptFile, read_labels
from PADing.data.splits import Split

WHAT, DOWNLOAD = "PASCAL VOC", "VOCtrainval_11-May-2012.tar"
VOID = 255


def source(options: Options) -> Source:
    """The files of ``VOCdevkit/VOC2012/``."""
    folder = existing(options.root / "VOCdevkit" / "VOC2012", WHAT, DOWNLOAD)
    listed = options.images or folder / "ImageSets" / "Segmentation" / "val.txt"
    items = []
    for name in image_list(listed, WHAT, DOWNLOAD):
        labels = tuple(folder / kind / f"{name}.png" for kind in ("SegmentationClass", "SegmentationObject"))
        items.append(Item(f"{name}.jpg", folder / "JPEGImages" / f"{name}.jpg", labels))
    refuse_missing(WHAT, (path for item in items for path in (item.image, *item.labels)), DOWNLOAD)
    return Source("voc_20", folder / "prepared", tuple(items), read, DOWNLOAD)


def read(item: Item, split: Split) -> Truth:
    """Classes and objects; the class of an object is that of most of its pixels."""
    class_path, object_path = item.labels
    ids = [category.id for category in split.categories]
    table = np.full(VOID + 1, -2)
    table[[0, VOID, *ids]] = [-1, -1, *ids]
    classes, numbers = by_value(read_labels(class_path), table, class_path, WHAT), read_labels(object_path)
    if classes.shape != numbers.shape:
        raise CorruptFile(f"{object_path} has the size {numbers.shape}, but {class_path} has {classes.shape}.")
    objects = []
    for number in np.unique(numbers):
        if number in (0, VOID):
            continue
        mask = numbers == number
        found, counts = np.unique(classes[mask & (classes >= 0)], return_counts=True)
        if not len(found):
            raise CorruptFile(f"{object_path}: object {number} has no class in {class_path.parent.name}.")
        objects.append(Region(int(found[counts.argmax()]), mask))
    return Truth(classes, objects)
