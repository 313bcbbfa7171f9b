"""Pascal VOC segmentation: SegmentationClass, SegmentationObject, JPEGImages, ImageSets/Segmentation/*.txt."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from PADing.data.images import read_labels
from PADing.data.importers.items import IMPORTERS, Item, Object, Source
from PADing.data.importers.label_pngs import read_label_item
from PADing.data.importers.masks import encode
from PADing.errors import UserError

VOC_CLASSES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep "
    "sofa train tvmonitor"
).split()
_VOID = 255


@IMPORTERS.register("voc")
def voc(source: Source) -> Iterator[Item]:
    """Instances from both kinds of PNG, or label maps from SegmentationClass alone (``source.kind``).

    An object's class is that of most of its pixels. Value 0 is background and 255 the border; both are ignored.
    """
    classes, objects = source.path / "SegmentationClass", source.path / "SegmentationObject"
    for folder in (classes, objects) if source.kind == "instance" else (classes,):
        if not folder.is_dir():
            raise UserError(
                f"{folder} does not exist, so {source.path} is not in Pascal VOC's format. Name the folder that holds "
                "JPEGImages and SegmentationClass; --kind semantic needs no SegmentationObject."
            )
    if not source.names.given:
        source.names.given.update({str(i): name for i, name in enumerate(VOC_CLASSES, 1)})
    source.ignore |= {0, _VOID}
    roles = _roles(source)
    near = source.path / "JPEGImages"
    for path in source.place.files((".png",), classes):
        if roles and path.stem not in roles:
            source.report.leave_out("image in no list of ImageSets/Segmentation", path)
            continue
        role = roles.get(path.stem)
        if source.kind == "semantic":
            item = read_label_item(source, path, path.stem, role)
        else:
            item = _instances(source, path, objects / path.name, role)
        if item is not None:
            item.near = near
            yield item


def _roles(source: Source) -> dict[str, str]:
    """The role of each image by the lists; the images of trainval alone train."""
    roles: dict[str, str] = {}
    folder = source.path / "ImageSets" / "Segmentation"
    for role, name in (("train", "trainval"), ("train", "train"), ("val", "val"), ("test", "test")):
        path = folder / f"{name}.txt"
        if not path.is_file() or not source.place.allows(path):
            continue
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.strip():
                roles[line.split()[0]] = role
    return roles


def _instances(source: Source, classes: Path, objects: Path, role: str | None) -> Item | None:
    if not objects.is_file():
        source.report.leave_out("image without a PNG in SegmentationObject", classes)
        return None
    if not source.place.allows(objects):
        source.report.leave_out("symbolic link that leads out of its folder (see --follow-links)", objects)
        return None
    try:
        class_map, object_map = read_labels(classes), read_labels(objects)
    except UserError:
        source.report.leave_out("label file that cannot be read, or with several channels", classes)
        return None
    if class_map.shape != object_map.shape:
        source.report.leave_out("SegmentationClass and SegmentationObject of different size", classes)
        return None
    item = Item(str(classes), classes.stem, source.path, class_map.shape, role=role)
    for number in np.unique(object_map):
        if number in (0, _VOID):
            continue
        mask = object_map == number
        found, counts = np.unique(class_map[mask], return_counts=True)
        known = [(count, value) for value, count in zip(found, counts, strict=True) if value not in source.ignore]
        if not known:
            source.report.leave_out("object without a class in SegmentationClass", f"{objects}, object {number}")
            continue
        if len(known) > 1:
            source.report.change("object of several classes gets that of most pixels", f"{objects}, object {number}")
        value = str(max(known)[1])
        if value not in source.names.given:
            source.report.leave_out(f"object of value {value}, which has no name", f"{objects}, object {number}")
            continue
        item.objects.append(Object(source.names.given[value], rles=[encode(mask)]))
    return item
