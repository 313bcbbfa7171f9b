"""What a module of an evaluation set tells the preparation."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from PADing.data.images import CorruptFile
from PADing.data.splits import Split
from PADing.errors import UserError

SHOWN = 3


@dataclass(frozen=True)
class Options:
    """What the user says: the folder of all data, and flags of single sets."""

    root: Path
    images: Path | None = None  # list of images
    labels: Path | None = None  # folder of annotation
    names: Path | None = None  # names of the values in label PNGs


@dataclass(frozen=True)
class Item:
    """One image: its path below the image folder, its file, and the files of its annotation."""

    name: str
    image: Path
    labels: tuple[Path, ...]


@dataclass(frozen=True)
class Region:
    """A segment of a thing: category id, mask (H, W) bool, and whether it is a group of objects (a crowd)."""

    category: int
    mask: np.ndarray
    crowd: bool = False


@dataclass(frozen=True)
class Truth:
    """The annotation of one image: ``classes`` (H, W) with category ids, -1 where there is none; objects of things."""

    classes: np.ndarray
    objects: Sequence[Region] = ()


@dataclass(frozen=True)
class Source:
    """The files of a set.

    Attributes:
        split_file: name of the split file.
        folder: where the result goes.
        items: the images, sorted.
        read: makes the truth of an item; importable, because other processes call it.
        download: what to unpack again if a file is missing or damaged.
        settings: further choices that change the result, for the record beside it.
    """

    split_file: str
    folder: Path
    items: tuple[Item, ...]
    read: Callable[[Item, Split], Truth]
    download: str
    settings: dict = field(default_factory=dict)


def refuse_missing(what: str, paths: Iterable[Path], download: str) -> None:
    """UserError with a count and the first names, if some of ``paths`` do not exist."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        shown = ", ".join(map(str, missing[:SHOWN])) + (" ..." if len(missing) > SHOWN else "")
        number = f"{len(missing)} files are" if len(missing) > 1 else "A file is"
        raise UserError(f"{what}: {number} missing: {shown}. Unpack {download} again, into the same folder.")


def existing(folder: Path, what: str, download: str) -> Path:
    """``folder``; UserError if it does not exist."""
    if not folder.is_dir():
        cure = f"Unpack {download} there; docs/other_datasets.md shows the folders"
        raise UserError(f"{what}: the folder {folder} does not exist. {cure}.")
    return folder


def image_list(path: Path, what: str, download: str) -> list[str]:
    """The first word of each line; UserError for a file that is missing, empty, or no list of names."""
    refuse_missing(what, [path], download)
    try:
        names = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"{what}: {path} cannot be read as a list of images ({error}).") from error
    if not names:
        raise UserError(f"{what}: {path} is empty. Unpack {download} again.")
    if twice := len(names) - len(set(names)):
        raise UserError(f"{what}: {path} names {twice} images twice. Is it the list of one set?")
    if wrong := [name for name in names if "/" in name or "\\" in name or name.startswith(".")]:
        raise UserError(f"{what}: {path} holds {wrong[0]!r}; names of images without folder and suffix are expected.")
    return sorted(names)


def by_value(values: np.ndarray, table: np.ndarray, path: Path, what: str) -> np.ndarray:
    """``table[values]``; CorruptFile if a value is outside of the table, or its entry is below -1."""
    outside = (values < 0) | (values >= len(table))
    found = table[np.where(outside, 0, values)]
    wrong = values[outside | (found < -1)]
    if wrong.size:
        shown = ", ".join(str(int(value)) for value in np.unique(wrong)[:SHOWN])
        raise CorruptFile(f"{path} has the values {shown}, which {what} does not have. Is it a file of another set?")
    return found
