"""Finds, reads and writes image files."""

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from PADing.data.images import read_image
from PADing.errors import UserError
from PADing.files import replacing

# Formats that can be read and written. Drawings of images in other formats are PNGs.
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def find_images(inputs: Iterable[str]) -> list[Path]:
    """The files that ``inputs`` (files, glob patterns, folders) name, in this order, each once.

    A missing file is returned, too: reading it reports the error, and the other images are still drawn. UserError: a
    pattern or a folder without any image.
    """
    found: list[Path] = []
    for item in inputs:
        item = os.path.expanduser(item)
        if not item or "\0" in item:
            raise UserError(f"{item!r} is not a name of an image.")
        if os.path.isdir(item):
            here = sorted(path for path in Path(item).iterdir() if path.suffix.lower() in SUFFIXES)
        elif not os.path.exists(item) and glob.has_magic(item):
            here = sorted(Path(path) for path in glob.glob(item, recursive=True) if os.path.isfile(path))
        else:
            here = [Path(item)]
        if not here:
            raise UserError(f"No image matches {item!r}. Quote a pattern so that the shell does not expand it.")
        found += here
    return list(dict.fromkeys(found))


def output_paths(images: Sequence[Path], output: Path) -> list[Path]:
    """The path of each image's drawing; UserError when it might replace an image.

    ``output`` is a file if there is one image and the name ends like an image's, else a folder. Images with the same
    name from several folders keep these folders below it.
    """
    if output.suffix.lower() in SUFFIXES and not output.is_dir():
        if len(images) > 1:
            raise UserError(f"--output {output} is a file, but there are {len(images)} images. Name a folder.")
        if os.path.realpath(output) == os.path.realpath(images[0]):
            raise UserError(f"--output {output} would replace the image {images[0]} by its drawing. Name another file.")
        return [output]
    names = {os.path.abspath(image): image.name for image in images}
    if len(set(names.values())) < len(names):
        top = os.path.commonpath([os.path.dirname(path) for path in names])
        names = {path: os.path.relpath(path, top) for path in names}
    used, paths = set(), []
    for name in names.values():
        name = name if Path(name).suffix.lower() in SUFFIXES else f"{name}.png"
        while name in used:  # scan.psd beside scan.psd.png
            name = f"{name}.png"
        used.add(name)
        paths.append(output / name)
    keep_originals(output, paths, images)
    return paths


def keep_originals(output: Path, drawings: Iterable[Path], images: Iterable[str | os.PathLike]) -> None:
    """Raise UserError if a drawing would be in a folder of the images: it may replace one, or be read as one."""
    # Real paths: links and ".." make no difference.
    folders = {os.path.realpath(folder) for folder in {os.path.dirname(image) for image in images}}
    for folder in {path.parent for path in drawings}:
        if os.path.realpath(folder) in folders:
            raise UserError(f"--output {output} would replace images in {folder} by drawings. Name another folder.")


def read_rgb(path: str | os.PathLike) -> np.ndarray:
    """An image as (H, W, 3) uint8 RGB; UserError says why it cannot be read. See ``PADing.data.images.read_image``."""
    return np.ascontiguousarray(read_image(path))


def write_rgb(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB. Makes the folder; the file appears only when it is complete.

    UserError: the folder cannot be made or written to, or the format does not support this size.
    """
    with replacing(path, sync=False) as temporary:
        try:
            Image.fromarray(image).save(temporary, quality=95)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # an error of the disk; otherwise the image is too large for JPEG or WebP
            size = f"{image.shape[1]} x {image.shape[0]} pixels"
            raise UserError(f"{path} cannot be written with {size} ({error}). Name a .png file.") from error


def write_overview(path: str | os.PathLike, rows: Sequence[np.ndarray]) -> None:
    """Write (h, w, 3) uint8 RGB images below each other, on white."""
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
    write_rgb(path, np.vstack(padded))
