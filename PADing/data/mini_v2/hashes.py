"""The identity of the mini data, version 2: SHA-256 over pixels, annotation and class vectors.

``hashes.json`` has the hashes of the frozen data. An image's hash covers its pixels (RGB, row by row) and its map of
segment ids (1000 x number of the segment + id of the class; 0 where nothing is annotated) as 16-bit numbers, low byte
first. A set's hash covers the hashes of its images in order; a world's covers its two sets and its class vectors. PNG
files are not hashed, because their bytes depend on the version of zlib.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from PADing.data.mini_v2.picture import Picture
from PADing.data.mini_v2.worlds import World
from PADing.files import read_json

__all__ = ["FIRST", "committed", "of_arrays", "of_set", "segment_ids"]

FILE = Path(__file__).with_name("hashes.json")
FIRST = 20  # images of a set have a hash of their own, which quick tests compare


def segment_ids(picture: Picture) -> np.ndarray:
    """The id of each pixel's segment, (H, W) uint16; 0: not annotated."""
    ids = [0, *(1000 * number + category.id for number, category in enumerate(picture.categories, start=1))]
    return np.array(ids, dtype=np.uint16)[picture.numbers]


def of_arrays(image: np.ndarray, ids: np.ndarray) -> str:
    """The hash of one image, (H, W, 3) uint8, and its segment ids (H, W)."""
    digest = hashlib.sha256(np.ascontiguousarray(image, dtype=np.uint8).tobytes())
    digest.update(np.ascontiguousarray(ids.astype("<u2")).tobytes())
    return digest.hexdigest()


def of_set(images: Iterable[str]) -> str:
    """The hash of a set from those of its images, in order."""
    return hashlib.sha256("".join(images).encode("ascii")).hexdigest()


def committed(world: World) -> dict:
    """The frozen hashes of a world: ``{subset: {"first": ..., "all": ...}, "vectors": {...}, "world": ...}``."""
    return read_json(FILE, "Hashes of the mini data")[world.name]
