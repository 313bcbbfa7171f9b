"""The class vectors of the mini data, version 2: three sealed tracks for each world.

A track says how far seen classes determine unseen ones: the share of the energy of the unseen vectors that lies in the
span of the seen ones, as a mean over the folds. ``make_vectors`` made the files once; nothing makes them again.
"""

import hashlib
import shutil
from pathlib import Path

import numpy as np

from PADing.data.mini_v2.folds import unseen
from PADing.data.mini_v2.worlds import FOLDS, World

__all__ = ["TRACKS", "copy_vectors", "determinacy", "file_of", "hash_of", "read"]

# The mean of the shares with and without the common mean. Centred, COCO's CLIP vectors (coco_stuff_156_15) have 0.75,
# its word vectors (coco_zsi_48_17) 0.39.
TRACKS = {"easy": 0.95, "clip": 0.75, "word": 0.4}


def file_of(world: World, track: str) -> Path:
    """The shipped file of a track."""
    return Path(__file__).with_name("vectors_data") / f"{world.name}_{track}.npz"


def read(world: World, track: str) -> np.ndarray:
    """The vectors (classes, width) float32 of unit length, in the order of the world's classes."""
    with np.load(file_of(world, track), allow_pickle=False) as content:
        return content["vectors"]


def hash_of(vectors: np.ndarray) -> str:
    """SHA-256 of vectors: their float32 numbers, low byte first, row by row."""
    return hashlib.sha256(np.ascontiguousarray(vectors.astype("<f4")).tobytes()).hexdigest()


def determinacy(world: World, vectors: np.ndarray, centred: bool = True) -> list[float]:
    """For each fold, the share of the energy of unseen vectors that lies in the span of the seen ones.

    Args:
        world: says which classes are unseen.
        vectors: (classes, width), in the order of the world's classes.
        centred: subtract the mean of the seen vectors from all first, because what all vectors have in common tells
            no classes apart.
    """
    names = [category.name for category in world.categories()]
    shares = []
    for fold in range(1, FOLDS + 1):
        hidden = np.isin(names, unseen(world, fold))
        seen, rest = (vectors[rows].astype(np.float64) for rows in (~hidden, hidden))
        if centred:
            seen, rest = seen - seen.mean(axis=0), rest - seen.mean(axis=0)
        sizes, directions = np.linalg.svd(seen, full_matrices=False)[1:]
        basis = directions[sizes > 1e-6 * sizes[0]]  # centred vectors span one direction less
        shares.append(float(((rest @ basis.T) ** 2).sum() / (rest**2).sum()))
    return shares


def copy_vectors(world: World, folder: Path) -> None:
    """Copy the class vectors of all tracks into a data folder."""
    for track in TRACKS:
        shutil.copyfile(file_of(world, track), folder / f"class_vectors_{track}.npz")
