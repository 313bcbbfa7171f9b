"""Pictures on disk: found, read as RGB, written whole."""

import contextlib
import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from PADing.data.images import read_image
from PADing.errors import UserError

__all__ = ["find_pictures", "output_paths", "read_rgb", "write_overview", "write_rgb"]

# Formats that are both read and written; a picture in another format is drawn into a PNG.
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def find_pictures(inputs: Iterable[str]) -> list[Path]:
    """Files, glob patterns and folders (their pictures) -> files, in the order given; each one once.

    A file that is named but does not exist is returned all the same: reading it says so, and the others are not lost.

    Raises:
        UserError: a pattern or a folder without any picture.
    """
    found: list[Path] = []
    for item in inputs:
        item = os.path.expanduser(item)
        if os.path.isdir(item):
            here = sorted(path for path in Path(item).iterdir() if path.suffix.lower() in SUFFIXES)
        elif not os.path.exists(item) and glob.has_magic(item):
            here = sorted(Path(path) for path in glob.glob(item, recursive=True) if os.path.isfile(path))
        else:
            here = [Path(item)]
        if not here:
            raise UserError(f"No picture matches {item!r}. Quote a pattern to keep the shell from reading it.")
        found += here
    return list(dict.fromkeys(found))


def output_paths(pictures: Sequence[Path], output: Path) -> list[Path]:
    """Where each picture's drawing goes.

    ``output`` is a file if there is one picture and the name ends like a picture's, else a folder. Pictures of one
    name from several folders keep these folders below it.

    Raises:
        UserError: a drawing would replace its own picture, or ``output`` is a file for several pictures.
    """
    is_file = output.suffix.lower() in SUFFIXES and not output.is_dir()
    if is_file and len(pictures) > 1:
        raise UserError(f"--output {output} is a file, but there are {len(pictures)} pictures. Name a folder.")
    if is_file:
        paths = [output]
    else:
        names = [Path(picture.name) for picture in pictures]
        if len(set(names)) < len(names):
            top = os.path.commonpath([os.path.abspath(picture.parent) for picture in pictures])
            names = [Path(os.path.relpath(os.path.abspath(picture), top)) for picture in pictures]
        paths = [output / (name if name.suffix.lower() in SUFFIXES else f"{name}.png") for name in names]
    for picture, path in zip(pictures, paths, strict=True):
        if os.path.realpath(picture) == os.path.realpath(path):
            raise UserError(f"--output would replace the picture {picture} by its drawing. Name another folder.")
    return paths


def read_rgb(path: str | os.PathLike) -> np.ndarray:
    """An image as (H, W, 3) uint8 RGB, turned as its EXIF orientation says; see ``PADing.data.images.read_image``.

    Raises:
        UserError: the file does not exist or cannot be read; names it and the reason.
    """
    return np.ascontiguousarray(read_image(path))


def write_rgb(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB; makes the folder, and the file appears only when it is complete.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(partial, quality=95)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise UserError(f"Cannot write {path}: {error.strerror or error}.") from error


def write_overview(path: str | os.PathLike, rows: Sequence[np.ndarray]) -> None:
    """Write (h, w, 3) uint8 RGB pictures below each other, on white."""
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
    write_rgb(path, np.vstack(padded))
