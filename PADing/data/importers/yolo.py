"""YOLO segmentation: data.yaml with the names, and a text file for each image with a polygon a line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from PADing.data.images import read_size
from PADing.data.importers.items import IMPORTERS, Item, Object, Source
from PADing.data.importers.places import NotFound, role_of
from PADing.errors import UserError, short


@IMPORTERS.register("yolo")
def yolo(source: Source) -> Iterator[Item]:
    """An item for each text file below a folder called ``labels``.

    Its image has the same path below the folder ``images`` in place of ``labels``. Folders called train,
    val (valid) and test give the role.
    """
    names = _names(source)
    found = False
    for path in source.place.files((".txt",), source.path):
        parts = list(path.relative_to(source.path).parts)
        if "labels" not in parts[:-1]:
            continue
        found = True
        last = len(parts) - 2 - parts[-2::-1].index("labels")
        parts[last] = "images"
        near = source.path.joinpath(*parts[:-1])
        item = Item(str(path), path.stem, near, role=role_of(source.place.relative(path)))
        try:
            image = source.images.image(item.image, near)
            height, width, orientation = read_size(image)
        except (NotFound, UserError):
            yield item  # the caller reports it
            continue
        # The numbers are parts of the upright image, unless the user says otherwise.
        turned = orientation >= 5 and source.exif != "ignored"
        item.size = (width, height) if turned else (height, width)
        _add_objects(source, item, path, names)
        yield item
    if not found:
        raise UserError(
            f"There is no text file below a folder `labels` in {source.path}. Name the folder of data.yaml."
        )


def _names(source: Source) -> dict[str, str]:
    files = [source.path / name for name in ("data.yaml", "data.yml", "dataset.yaml")]
    path = next((path for path in files if path.is_file() and source.place.allows(path)), None)
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UserError(f"{path} is not valid YAML in UTF-8: {' '.join(str(error).split())[:200]}.") from error
    names: Any = content.get("names") if isinstance(content, dict) else None
    entries = names.items() if isinstance(names, dict) else enumerate(names) if isinstance(names, list) else ()
    found = {str(number): str(name) for number, name in entries}
    if not found and not source.names.given:
        cure = "Give them with --names 0=person,1=dog."
        raise UserError(f"{path} names no classes: its `names` is {short(names)}. {cure}")
    return found


def _add_objects(source: Source, item: Item, path: Path, names: dict[str, str]) -> None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        source.report.leave_out("file that is not text in UTF-8", path)
        return
    assert item.size is not None
    height, width = item.size
    for i, line in enumerate(lines, 1):
        words, where = line.split(), f"{path}, line {i}"
        if not words:
            continue
        if len(words) == 5:
            source.report.leave_out("line with a box only", where)
            continue
        if len(words) < 7 or len(words) % 2 == 0:
            source.report.leave_out("line that is not a class and three or more points", where)
            continue
        try:
            values = [float(word) for word in words[1:]]
            number = str(int(words[0]))
        except ValueError:
            source.report.leave_out("line with something that is not a number", where)
            continue
        if max(values) > 2 and max(values) < float("inf"):
            source.report.leave_out("line with points in pixels, not in parts of the image", where)
            continue
        name = source.names.given.get(number, names.get(number, f"class_{number}" if not names else ""))
        if not name:
            source.report.leave_out(f"object of class {number}, which data.yaml does not name", where)
            continue
        scaled = [value * (height if k % 2 else width) for k, value in enumerate(values)]
        item.objects.append(Object(name, [scaled]))
