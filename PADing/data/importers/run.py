"""The import as a whole: reads a source item by item, checks it, and writes the files that make_split.py reads."""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from PADing.data.images import read_size
from PADing.data.importers import roles
from PADing.data.importers.classes import ClassNames, read_given_names
from PADing.data.importers.items import IMPORTERS, Item, Source
from PADing.data.importers.masks import Unusable, annotation_of, turned
from PADing.data.importers.places import NotFound, Place
from PADing.data.importers.report import Report
from PADing.data.importers.writing import REPORT, Spool, check_output, write_instances
from PADing.data.loaders import IMAGE_EXTENSIONS
from PADing.errors import UserError, did_you_mean
from PADing.files import replacing_folder, write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportOptions:
    """How to import; tools/import_data.py explains each."""

    images_dir: str | None = None
    names: str | None = None
    ignore: tuple[int, ...] = (255,)
    kind: str = "instance"
    val_fraction: float | None = None
    val_list: str | None = None
    seed: int = 0
    copy_images: str | None = None
    exif: str = "auto"
    overwrite: bool = False
    follow_links: bool = False
    keep_case: bool = False


@dataclass(frozen=True)
class Imported:
    """The result: ``output``, ``image_root``, ``kind`` ("instance" or "semantic"), ``roles`` and ``classes`` in it."""

    output: Path
    image_root: Path
    kind: str
    roles: tuple[str, ...]
    classes: tuple[str, ...]
    report: Report


def import_data(source: str, form: str, output: str, options: ImportOptions | None = None) -> Imported:
    """Import ``source`` into the new folder ``output``.

    For instances it holds ``instances_train.json`` and ``instances_val.json``; for label maps ``classes.json`` and the
    folders ``raw/train`` and ``raw/val``. ``import_report.json`` has the report, ``images/`` the images if they are
    copied. The source is never written to, and ``output`` appears when it is complete.

    Args:
        source: the folder, or the file of a format that has one file.
        form: a name in ``IMPORTERS``.
        output: the folder to write.
        options: see ``ImportOptions``.

    Raises:
        UserError: a wrong option or path, or nothing can be imported; nothing is written then.
    """
    options = options or ImportOptions()
    path = Path(source)
    if form not in IMPORTERS:
        raise UserError(f"--format {form!r} is not one of {', '.join(IMPORTERS)}{did_you_mean(form, IMPORTERS)}.")
    if not path.exists():
        raise UserError(f"The source {path} does not exist.")
    root = Path(options.images_dir) if options.images_dir else path if path.is_dir() else path.parent
    if not root.is_dir():
        raise UserError(f"--images-dir {root} is not a folder.")
    if options.val_fraction is not None and options.val_list:
        raise UserError("--val-fraction and --val-list exclude each other. Give one.")
    if options.val_fraction is not None and not 0 < options.val_fraction < 1:
        raise UserError(f"--val-fraction {options.val_fraction} must be greater than 0 and less than 1.")
    if options.val_list and not os.path.isfile(options.val_list):
        raise UserError(f"--val-list {options.val_list} is not a file.")
    target = Path(os.path.abspath(output))
    check_output(target, (path if path.is_dir() else path.parent, root), options.overwrite)
    report = Report()
    names = ClassNames(read_given_names(options.names), report, options.keep_case)
    annotation_root = path if path.is_dir() else path.parent
    place = Place(annotation_root, report, options.follow_links)
    images = place if root == annotation_root else Place(root, report, options.follow_links)
    ignore, kind = frozenset(options.ignore), options.kind
    given = Source(path, place, images, names, report, ignore, kind, options.exif)
    with replacing_folder(target) as staging:
        return _Run(given, options, staging, target).run(IMPORTERS[form](given))


class _Run:
    def __init__(self, source: Source, options: ImportOptions, staging: Path, target: Path):
        self.source, self.options, self.staging, self.target = source, options, staging, target
        self.report, self.names = source.report, source.names
        self.kinds: set[str] = set()
        self.taken: dict[str, str | None] = {}  # image -> role that the source says

    def run(self, items: Iterator[Item]) -> Imported:
        with Spool(self.staging / "spool") as spool:
            for item in tqdm(items, desc="import", unit="image", mininterval=1, disable=None):
                self._take(item, spool)
            if not self.kinds:
                raise UserError(f"Nothing could be imported from {self.source.path}.\n{self.report.table()}")
            of_role = self._roles()
            kind = self.kinds.pop()
            used = tuple(role for role in ("train", "val") if role in of_role.values())
            for role in used:
                self.report.taken[role] = {"images": 0, "objects": 0, "images without an object": 0}
            if kind == "instance":
                write_instances(self.staging, spool, of_role, self.names.categories(), self.report)
            else:
                self._write_labels(of_role)
        (self.staging / "spool").unlink()
        image_root = self.target / "images" if self.options.copy_images else self.source.images.root.absolute()
        names = tuple(category["name"] for category in self.names.categories())
        content = {"source": str(self.source.path), "image_root": str(image_root), "kind": kind, "classes": names}
        write_json(self.staging / REPORT, content | self.report.as_json(), indent=1)
        return Imported(self.target, image_root, kind, used, names, self.report)

    def _take(self, item: Item, spool: Spool) -> None:
        if item.role == "test":
            self.report.leave_out("image of a test set", item.where)
            return
        try:
            not_this = Path(item.where) if item.labels is not None else None
            path = self.source.images.image(item.image, item.near, not_this)
        except NotFound as reason:
            self.report.leave_out(str(reason), f"{item.where}: {item.image}" if item.image else item.where)
            return
        name = self.source.images.relative(path)
        if name in self.taken:
            self.report.leave_out("second annotation of an image", f"{item.where}: {name}")
            return
        try:
            height, width, orientation = read_size(path)
        except UserError:
            self.report.leave_out("image that cannot be read", path)
            return
        turn = _turn(item.size, (height, width), orientation, self.options.exif)
        if turn is None:
            self.report.leave_out("image of another size than its annotation says", path)
            return
        if turn > 1:
            self.report.change("annotation is turned upright with its image (EXIF)", path)
        if item.labels is not None:
            if not self._take_labels(item.labels, path, name, turn):
                return
        else:
            size = (height, width) if turn > 1 or orientation < 5 else (width, height)
            self._take_objects(item, name, size, turn, spool)
        self.taken[name] = item.role
        if self.options.copy_images:
            _copy(path, self.staging / "images" / name, self.options.copy_images)

    def _take_objects(self, item: Item, name: str, size: tuple[int, int], turn: int, spool: Spool) -> None:
        annotations = []
        for thing in item.objects:
            try:
                annotation, clipped = annotation_of(thing, size, turn)
            except Unusable as reason:
                self.report.leave_out(str(reason), f"{item.where}: {thing.name}")
                continue
            class_name = self.names.of(thing.name, item.where)
            if not class_name:
                self.report.leave_out("object without a class", item.where)
                continue
            if clipped:
                self.report.change("polygon is clipped to its image", f"{item.where}: {thing.name}")
            annotations.append({"category_id": self.names.number(class_name), **annotation})
            self.kinds.add("instance")
        height, width = size[::-1] if turn >= 5 else size
        spool.add({"file_name": name, "height": height, "width": width}, annotations)

    def _take_labels(self, labels: np.ndarray, path: Path, name: str, turn: int) -> bool:
        twins = [end for end in IMAGE_EXTENSIONS if end != path.suffix and path.with_suffix(end).exists()]
        stem = PurePosixPath(name).with_suffix("")
        if twins and not self.options.copy_images or any(f"{stem}{end}" in self.taken for end in IMAGE_EXTENSIONS):
            reason = "image beside a file that differs by its extension alone (--copy-images separates them)"
            self.report.leave_out(reason, path)
            return False
        png = self.staging / "raw" / "all" / f"{stem}.png"
        png.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(turned(labels, turn)).save(png)
        self.kinds.add("semantic")
        return True

    def _roles(self) -> dict[str, str]:
        images = sorted(self.taken)
        if self.options.val_list:
            chosen = roles.by_list(images, self.options.val_list, self.report)
        elif self.options.val_fraction is not None:
            chosen = roles.by_fraction(images, self.options.val_fraction, self.options.seed, self.report)
        else:
            chosen = {image for image, role in self.taken.items() if role == "val"}
        return {image: "val" if image in chosen else "train" for image in images}

    def _write_labels(self, of_role: dict[str, str]) -> None:
        for name, role in of_role.items():
            below = f"{PurePosixPath(name).with_suffix('')}.png"
            png = self.staging / "raw" / role / below
            png.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.staging / "raw" / "all" / below, png)
            self.report.taken[role]["images"] += 1
        for found in self.report.taken.values():
            del found["objects"], found["images without an object"]
        shutil.rmtree(self.staging / "raw" / "all")
        write_json(self.staging / "classes.json", self.names.categories(), indent=1)


def _turn(size: tuple[int, int] | None, stored: tuple[int, int], orientation: int, exif: str) -> int | None:
    """The EXIF orientation to apply to an annotation; 1 if it is upright already, None if the sizes do not fit."""
    upright = stored[::-1] if orientation >= 5 else stored
    if exif != "ignored" and size in (None, upright):
        return 1
    if exif != "applied" and size in (None, stored):
        return orientation
    return None


def _copy(source: Path, target: Path, way: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if way == "link":
        with suppress(OSError):  # another file system, or one without hard links
            os.link(os.path.realpath(source), target)
            return
    shutil.copyfile(source, target)


def next_commands(result: Imported, unseen: Sequence[str] = ()) -> list[list[str]]:
    """The commands that go on from here: make_split.py, and for label maps their conversion."""
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in result.output.name) or "mine"
    output, split = _shown(result.output), _shown(result.output / "split.yaml")
    make: list[str] = ["python", "tools/make_split.py", "--name", name]
    make += ["--unseen", ",".join(unseen) or "UNSEEN", "--output", split]
    rest: list[list[str]] = []
    for role in result.roles:
        make += [f"--{role}-images", _shown(result.image_root)]
        if result.kind == "instance":
            make += [f"--{role}-json", f"{output}/instances_{role}.json"]
        else:
            make += [f"--{role}-labels", f"{output}/labels/{role}"]
            convert = ["python", "datasets/prepare_coco_stuff_sem_seg.py", "--split-file", split]
            rest.append([*convert, "--data-set", f"{name}_{role}_semantic", "--source", f"{output}/raw/{role}"])
    if result.kind == "semantic":
        make += ["--categories", f"{output}/classes.json"]
    return [make, *rest, ["python", "-m", "PADing.data.verify", "--split-file", split, "--deep"]]


def _shown(path: Path) -> str:
    below = os.path.relpath(path)
    return str(path) if below.startswith("..") else below


def summary(result: Imported) -> dict[str, Any]:
    """The report of a result as plain values, as ``import_report.json`` has it."""
    return json.loads((result.output / REPORT).read_text(encoding="utf-8"))
