"""Writes the result: objects through a file, so that memory does not grow with them."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from PADing.data.importers.report import Report
from PADing.errors import UserError
from PADing.files import replacing

REPORT = "import_report.json"


class Spool:
    """A temporary file with an image and its annotations in each line."""

    def __init__(self, path: Path):
        self._path = path
        self._file: TextIO | None = None

    def __enter__(self) -> "Spool":
        """Open the file."""
        self._file = open(self._path, "w+", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    def add(self, image: dict, annotations: list[dict]) -> None:
        """Append an image, without its id, and its annotations, without ids."""
        assert self._file is not None
        self._file.write(json.dumps([image, annotations], allow_nan=False) + "\n")

    def __iter__(self) -> Iterator[tuple[dict, list[dict]]]:
        """All images with their annotations, in the order in which they were added."""
        assert self._file is not None
        self._file.seek(0)
        for line in self._file:
            image, annotations = json.loads(line)
            yield image, annotations


def write_instances(
    folder: Path, spool: Spool, of_role: dict[str, str], categories: list[dict], report: Report
) -> None:
    """Write ``instances_<role>.json`` for each role; the ids of images and annotations count from 1 in each."""
    for role, taken in report.taken.items():
        with replacing(folder / f"instances_{role}.json") as path, open(path, "w", encoding="utf-8") as file:
            file.write(f'{{"categories": {json.dumps(categories, ensure_ascii=False)},\n"images": [')
            chosen = (entry for entry in spool if of_role[entry[0]["file_name"]] == role)
            for image, annotations in chosen:
                taken["images"] += 1
                taken["objects"] += len(annotations)
                taken["images without an object"] += not annotations
                _write_item(file, {"id": taken["images"], **image}, taken["images"] == 1)
            file.write('],\n"annotations": [')
            chosen = (entry for entry in spool if of_role[entry[0]["file_name"]] == role)
            number = 0
            for i, (_, annotations) in enumerate(chosen, 1):
                for annotation in annotations:
                    number += 1
                    _write_item(file, {"id": number, "image_id": i, **annotation}, number == 1)
            file.write("]}\n")


def _write_item(file: TextIO, item: dict, first: bool) -> None:
    file.write(("\n" if first else ",\n") + json.dumps(item, ensure_ascii=False))


def check_output(target: Path, sources: Sequence[Path], overwrite: bool) -> None:
    """UserError if ``target`` is, holds or lies in a source, or is there already and may not be replaced."""
    real = os.path.realpath(target)
    for source in sources:
        inside = os.path.realpath(source)
        if os.path.commonpath([real, inside]) in (real, inside):
            raise UserError(f"--output {target} and the source {source} overlap. Choose a folder outside the source.")
    if not os.path.lexists(target):
        return
    if target.is_symlink() or not target.is_dir():
        raise UserError(f"--output {target} is not a folder. Choose another.")
    if any(target.iterdir()):
        if not overwrite:
            raise UserError(f"--output {target} is not empty. Choose another folder, or add --overwrite.")
        if not (target / REPORT).is_file():
            raise UserError(f"--output {target} is not the result of an import, so --overwrite does not replace it.")
