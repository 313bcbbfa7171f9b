"""Compares mini data, version 2, with the frozen hashes.

    python -m PADing.data.mini_v2.verify datasets/mini2/test    # the files of a folder, as a training reads them
    python -m PADing.data.mini_v2.verify                        # draws all worlds again, without writing (a minute)

``--freeze`` writes the hashes of what this code draws. They are frozen: do so only with a new version of the data.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from PADing.command_line import CommandParser, run_command
from PADing.data.mini_files import MANIFEST
from PADing.data.mini_v2.hashes import FILE, FIRST, committed, of_arrays, of_set, segment_ids
from PADing.data.mini_v2.picture import SUBSETS, draw
from PADing.data.mini_v2.vectors import TRACKS, hash_of, read
from PADing.data.mini_v2.worlds import WORLDS, World, world
from PADing.data.preparation import add_workers_flag, worker_pool
from PADing.errors import UserError
from PADing.files import read_json, write_json

__all__ = ["drawn_hash", "main", "problems_of_folder"]


def drawn_hash(name: str, subset: str, index: int) -> str:
    """The hash of one image, drawn again."""
    picture = draw(world(name), subset, index)
    return of_arrays(picture.image, segment_ids(picture))


def problems_of_folder(folder: Path) -> list[str]:
    """What differs from the frozen data in a data folder, in words; UserError if it is none or files are missing."""
    settings = read_json(folder / MANIFEST, "Mini data").get("settings")
    names = [one.name for one in WORLDS]
    if not isinstance(settings, dict) or settings.get("version") != 2 or settings.get("world") not in names:
        raise UserError(f"{folder} is not mini data of version 2. Draw it with datasets/make_mini_coco.py --version 2.")
    one = world(settings["world"])
    problems: list[str] = []
    for subset in SUBSETS:
        entries = read_json(folder / "annotations" / f"panoptic_{subset}.json", "Mini data")["annotations"]
        read_one = partial(_read_hash, folder, subset)
        bar = tqdm(entries, desc=f"reading {one.name}/{subset}", unit="image", mininterval=1)
        hashes = [read_one(entry, problems) for entry in bar]
        whole = getattr(one, subset)
        key, number = ("all", whole) if len(hashes) == whole else ("first", FIRST)
        if len(hashes) < number:
            problems.append(f"{subset}: {len(hashes)} images are too few to compare; draw at least {FIRST}")
        elif of_set(hashes[:number]) != committed(one)[subset][key]:
            problems.append(f"{subset}: the first {number} images have other pixels or annotation than the frozen ones")
    for track in TRACKS:
        if _vectors_hash(folder / f"class_vectors_{track}.npz") != committed(one)["vectors"][track]:
            problems.append(f"class_vectors_{track}.npz has other vectors than the frozen ones")
    return problems


def _read_hash(folder: Path, subset: str, entry: dict, problems: list[str]) -> str:
    """The hash of one image as its files have it; notes when the JSON and the PNG disagree."""
    name = entry["file_name"]
    image = _pixels(folder / subset / name)
    rgb = _pixels(folder / f"panoptic_{subset}" / name).astype(np.int64)
    ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
    listed = {segment["id"]: segment["category_id"] for segment in entry["segments_info"]}
    if set(listed) != set(np.unique(ids).tolist()) - {0} or any(key % 1000 != value for key, value in listed.items()):
        problems.append(f"{subset}/{name}: the segments of the JSON are not those of the PNG")
    return of_arrays(image, ids)


def _vectors_hash(path: Path) -> str:
    """The hash of a file of class vectors; "" if it is none."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return hash_of(content["vectors"])
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist. Draw the data again, with a new --output.") from error
    except (OSError, ValueError, KeyError, AttributeError, TypeError, EOFError, BadZipFile):
        return ""


def _pixels(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist. Draw the data again, with a new --output.") from error
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"{path} cannot be read ({error}). Draw the data again, with a new --output.") from error


def _draw_all(one: World, workers: int) -> dict:
    """The hashes of a world as ``hashes.json`` has them."""
    found: dict = {}
    with worker_pool(workers) as pool:
        for subset in SUBSETS:
            number = getattr(one, subset)
            done = pool.imap(partial(drawn_hash, one.name, subset), range(number), chunksize=16)
            hashes = list(tqdm(done, total=number, desc=f"drawing {one.name}/{subset}", unit="image", mininterval=1))
            found[subset] = {"images": number, "first": of_set(hashes[:FIRST]), "all": of_set(hashes)}
    found["vectors"] = {track: hash_of(read(one, track)) for track in TRACKS}
    found["world"] = of_set([found["train"]["all"], found["val"]["all"], *found["vectors"].values()])
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 if all is as frozen, 1 if not."""
    parser = CommandParser(__doc__, prog="python -m PADing.data.mini_v2.verify")
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="data folders; none: draw again")
    parser.add_argument("--freeze", action="store_true", help="write the hashes of a new version (see above)")
    add_workers_flag(parser)
    return run_command(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> int:
    problems = []
    for folder in args.folders:
        problems += [f"{folder}: {problem}" for problem in problems_of_folder(folder)]
        print(f"{folder}: read")
    if not args.folders:
        drawn = {one.name: _draw_all(one, args.workers) for one in WORLDS}
        if args.freeze:
            write_json(FILE, drawn, indent=1)
        for one in WORLDS:
            if drawn[one.name] != committed(one):
                problems.append(
                    f"world {one.name}: this machine draws {drawn[one.name]}, but frozen is {committed(one)}"
                )
            print(f"{one.name}: {drawn[one.name]['world']}")
    print("\n".join(problems) if problems else "All is as frozen.")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
