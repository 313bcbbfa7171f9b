"""Made the class vectors of the mini data, version 2, once; and says how far seen classes determine unseen ones.

    python -m PADing.data.mini_v2.make_vectors             # prints the table of determinacy

A class vector is a non-linear mixture of its parts, with noise. The parts of a class and "thing" or "stuff" are random
directions; their sum goes through two random matrices with tanh between them. A share of the noise lies in a few
directions that all classes of a super-category have in common; the rest is independent. The scale of the noise was
found by bisection, so that the mean of the two shares, centred and as they are, has the value of the track.

``--write`` makes the files again. They are frozen, and other versions of NumPy may give other bits: never run it on
data that somebody has used.
"""

import argparse
import sys

import numpy as np
from tabulate import tabulate

from PADing.command_line import CommandParser, run_command
from PADing.data.mini_v2.vectors import TRACKS, determinacy, file_of, hash_of, read
from PADing.data.mini_v2.worlds import WORLDS, World

__all__ = ["make"]

WIDTH = 300
GAIN = {"easy": 0.4, "clip": 1.2, "word": 2.0}  # of tanh: more mixes the parts less linearly
COMMON_SHARE, COMMON_DIRECTIONS = 0.25, 8  # of the energy of noise; directions of a super-category
GRID = 2**14  # vectors are multiples of 1 / GRID, so that the files are small


def make(world: World, track: str) -> np.ndarray:
    """The vectors (classes, WIDTH) float32 of a track, in the order of the world's classes."""
    rng = np.random.default_rng([world.number, sorted(TRACKS).index(track)])
    signal, noise = _signal(world, GAIN[track], rng), _noise(world, rng)
    low, high = 0.0, 8.0
    for _ in range(40):
        scale = (low + high) / 2
        share = np.mean(_shares(world, _finished(signal + scale * noise)))
        low, high = (scale, high) if share > TRACKS[track] else (low, scale)
    return _finished(signal + low * noise)


def _shares(world: World, vectors: np.ndarray) -> tuple[float, float]:
    """The mean over the folds, with and without subtracting the common mean."""
    return tuple(float(np.mean(determinacy(world, vectors, centred))) for centred in (True, False))  # type: ignore[return-value]


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _finished(vectors: np.ndarray) -> np.ndarray:
    return (np.round(_unit(vectors) * GRID) / GRID).astype(np.float32)


def _signal(world: World, gain: float, rng: np.random.Generator) -> np.ndarray:
    parts = [*world.textures, *world.shapes, *world.tones, *world.patterns, "thing", "stuff"]
    directions = dict(zip(parts, _unit(rng.standard_normal((len(parts), WIDTH))), strict=True))
    sums = [
        directions[c.parts[0]] + directions[c.parts[1]] + 0.7 * directions["thing" if c.isthing else "stuff"]
        for c in world.categories()
    ]
    first, second = (rng.standard_normal((WIDTH, WIDTH)) for _ in range(2))
    return _unit(np.tanh(gain * (np.stack(sums) @ first)) @ second)


def _noise(world: World, rng: np.random.Generator) -> np.ndarray:
    classes = world.categories()
    groups = list(dict.fromkeys(map(world.super_category, classes)))
    common = {group: _unit(rng.standard_normal((COMMON_DIRECTIONS, WIDTH))) for group in groups}
    shared = np.stack([rng.standard_normal(COMMON_DIRECTIONS) @ common[world.super_category(c)] for c in classes])
    own = rng.standard_normal((len(classes), WIDTH))
    return np.sqrt(COMMON_SHARE) * _unit(shared) + np.sqrt(1 - COMMON_SHARE) * _unit(own)


def _write(world: World, track: str) -> None:
    path = file_of(world, track)
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        path,
        names=np.array([category.name for category in world.categories()]),
        vectors=make(world, track),
        source=np.array(f"mini data, version 2, world {world.name}, track {track}"),
        templates=np.array([], dtype=str),
    )


def _table() -> str:
    rows = []
    for world in WORLDS:
        for track, wanted in TRACKS.items():
            vectors = read(world, track)
            shares = determinacy(world, vectors)
            spread = f"{min(shares):.3f} to {max(shares):.3f}"
            means = (f"{share:.3f}" for share in _shares(world, vectors))
            rows.append([world.name, track, wanted, *means, spread, hash_of(vectors)[:16]])
    heads = ["world", "track", "wanted", "centred", "as they are", "centred, over the folds", "SHA-256 begins"]
    return tabulate(rows, heads, disable_numparse=True)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__, prog="python -m PADing.data.mini_v2.make_vectors")
    parser.add_argument("--write", action="store_true", help="make the files again (see above)")
    return run_command(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    if args.write:
        for world in WORLDS:
            for track in TRACKS:
                _write(world, track)
    print(_table())


if __name__ == "__main__":
    sys.exit(main())
