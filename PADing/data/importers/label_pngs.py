"""Folders of PNGs with a class number in each pixel, without any JSON."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from PADing.data.images import read_labels
from PADing.data.importers.items import IMPORTERS, Item, Source
from PADing.data.importers.places import role_of
from PADing.errors import UserError

# A semantic label PNG has at most 255 classes, and 255 is its ignored value.
IGNORED = 255
_MOST_CLASSES = 255
_LARGEST = 2**16 - 1


@IMPORTERS.register("label-png")
def label_pngs(source: Source) -> Iterator[Item]:
    """An item with ``labels`` for each PNG below the folder; the image has the same path below the image folder."""
    for path in source.place.files((".png",), source.path):
        below = path.relative_to(source.path).as_posix()
        item = read_label_item(source, path, below.removesuffix(path.suffix), role_of(below))
        if item is not None:
            yield item


def read_label_item(source: Source, path: Path, image: str, role: str | None) -> Item | None:
    """The item of one label PNG; None, after a report, if it cannot be read."""
    try:
        raw = read_labels(path)
    except UserError as error:
        reason = "label file with several channels" if "channels" in str(error) else "label file that cannot be read"
        source.report.leave_out(reason, path)
        return None
    if raw.min() < 0 or raw.max() > _LARGEST:
        source.report.leave_out(f"label file with values outside 0..{_LARGEST}", path)
        return None
    labels = _with_ids(source, raw, path)
    if labels is None:
        return None
    return Item(str(path), image, source.images.root, raw.shape, labels=labels, role=role)


def _with_ids(source: Source, raw: np.ndarray, path: Path) -> np.ndarray | None:
    values = [int(value) for value in np.unique(raw)]
    table = {value: IGNORED for value in values}
    for value in values:
        if value in source.ignore or (value == IGNORED and str(value) not in source.names.given):
            continue
        if source.names.given and str(value) not in source.names.given:
            source.report.leave_out(f"pixels of value {value}, which --names does not name", path)
            continue
        if value == IGNORED:
            raise UserError(f"--names names {IGNORED}, which stands for pixels without a class. Change it in the PNGs.")
        name = source.names.of(source.names.given.get(str(value), f"class_{value}"), str(path))
        table[value] = source.names.number(name, value)
        if len(source.names.categories()) > _MOST_CLASSES:
            raise UserError(
                f"{path} brings more than {_MOST_CLASSES} values: the PNGs do not hold classes. Are they images, or "
                "numbers of objects? --names names the values that are classes."
            )
        _keep_color(source, name, value, path)
    if set(table.values()) == {IGNORED}:
        source.report.leave_out("label file without a pixel of a class", path)
        return None
    lookup = np.zeros(values[-1] + 1, dtype=np.uint16)
    lookup[values] = [table[value] for value in values]
    labels = lookup[raw]
    return labels.astype(np.uint8) if labels.max() <= IGNORED else labels


def _keep_color(source: Source, name: str, value: int, path: Path) -> None:
    """The class's color in drawings is that of the palette, if the PNG has one."""
    if name in source.names.colors:
        return
    source.names.colors[name] = []
    with Image.open(path) as image:
        palette = image.getpalette("RGB") if image.mode == "P" else None
    color = palette[3 * value : 3 * value + 3] if palette else []
    if len(color) == 3 and any(color):
        source.names.colors[name] = color
