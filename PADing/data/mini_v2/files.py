"""Writes a world of the mini data, version 2, in COCO's format, and compares its hash with the frozen one.

Folders and files are those of version 1, except that images are PNGs, that instance masks are compressed run lengths,
and that ``fold1`` to ``fold10`` have what depends on the fold (``PADing.data.mini_v2.fold_files``). Pixels of
distractors have no panoptic segment and are ignored (255) in semantic maps, as pixels without annotation are in COCO.
Instance annotation does not name them, either, so whoever segments a distractor makes a false positive.
"""

import json
import os
from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
from PIL import Image
from tqdm import tqdm

from PADing.data.mini_files import MANIFEST, MOST_IMAGES, is_there
from PADing.data.mini_v2.fold_files import IGNORE, make_fold
from PADing.data.mini_v2.hashes import FIRST, committed, of_arrays, of_set, segment_ids
from PADing.data.mini_v2.picture import SIZE, SUBSETS, draw
from PADing.data.mini_v2.vectors import copy_vectors
from PADing.data.mini_v2.worlds import World, world
from PADing.data.preparation import worker_pool
from PADing.errors import UserError
from PADing.files import replacing_folder, write_json
from PADing.leftovers import remove_leftovers

__all__ = ["make_world"]

VERSION = 2


def make_world(
    name: str,
    out: str | os.PathLike,
    train: int | None = None,
    val: int | None = None,
    folds: Iterable[int] = (1,),
    workers: int = 1,
    force: bool = False,
) -> Path:
    """Write a world and some of its folds into the folder ``out``, unless they are there already; return its path.

    The folder appears when it is complete, and so does each fold's. ``out/mini.json`` records the world, the number of
    images and their hashes.

    Args:
        name: of the world.
        out: the folder.
        train, val: only the first images of each set; None: the whole set.
        folds: numbers of folds, from 1.
        workers: number of processes.
        force: replace other mini data.

    Raises:
        UserError: a set has fewer images, ``out`` has other content or cannot be created, or this machine draws other
            pixels than the frozen ones.
    """
    one, out = world(name), Path(out)
    sizes = {subset: _size(one, subset, number) for subset, number in zip(SUBSETS, (train, val), strict=True)}
    settings = {"version": VERSION, "world": name, **sizes}
    remove_leftovers(out.parent)  # also if the data are there, because nothing else is written then
    if not is_there(out, settings, force):
        _draw_world(one, out, settings, sizes, workers)
    for fold in folds:
        make_fold(one, fold, out, workers)
    return out


def _draw_world(one: World, out: Path, settings: dict, sizes: dict[str, int], workers: int) -> None:
    with replacing_folder(out) as building:
        counts, hashes = {}, {}
        with worker_pool(workers) if workers > 1 else nullcontext() as pool:
            for subset, size in sizes.items():
                for folder in (subset, f"panoptic_{subset}", f"panoptic_semseg_{subset}", "annotations"):
                    (building / folder).mkdir(exist_ok=True)
                write = partial(_write_image, str(building), one.name, subset)
                done = pool.imap(write, range(size), chunksize=8) if pool else map(write, range(size))
                bar = tqdm(done, total=size, desc=f"drawing {one.name}/{subset}", unit="image", mininterval=1)
                counts[subset], hashes[subset] = _write_annotation(building, one, subset, bar)
        for subset, found in hashes.items():
            _check_hash(one, subset, found, sizes[subset])
        copy_vectors(one, building)
        summary = {subset: of_set(found) for subset, found in hashes.items()}
        write_json(building / MANIFEST, {"settings": settings, "counts": counts, "sha256": summary})


def _size(one: World, subset: str, number: int | None) -> int:
    whole = getattr(one, subset)
    if number is None or number == whole:
        return whole
    if not 1 <= number <= whole:
        raise UserError(f"--{subset} must be 1 to {whole}, the images of the frozen set, but is {number}.")
    return number


def _check_hash(one: World, subset: str, hashes: list[str], size: int) -> None:
    frozen = committed(one)[subset]
    for key, number in (("all", getattr(one, subset)), ("first", FIRST)):
        if size >= number and of_set(hashes[:number]) != frozen[key]:
            raise UserError(
                f"The world {one.name} comes out with other pixels or annotation than the frozen data (SHA-256 of the "
                f"first {number} images of {subset}: {of_set(hashes[:number])}, but should be {frozen[key]}). Its "
                "metrics would not compare with those of others, so nothing is written. Report this with your versions "
                "of NumPy and Python, and the processor."
            )


def _write_image(root: str, name: str, subset: str, index: int) -> tuple[dict, list[dict], list[dict], str]:
    """Draw and write one image and its maps; its JSON entry, panoptic segments, instances and hash."""
    one = world(name)
    picture = draw(one, subset, index)
    image_id = MOST_IMAGES * SUBSETS.index(subset) + index + 1
    file = f"{image_id:012d}.png"
    ids = segment_ids(picture)
    _save(picture.image, os.path.join(root, subset, file))
    _save(
        np.stack([ids % 256, ids // 256, np.zeros_like(ids)], axis=-1), os.path.join(root, f"panoptic_{subset}", file)
    )
    labels = np.array([IGNORE, *map(one.categories().index, picture.categories)], dtype=np.uint8)
    _save(labels[picture.numbers], os.path.join(root, f"panoptic_semseg_{subset}", file))
    segments, instances = [], []
    for number, category in enumerate(picture.categories, start=1):
        mask = picture.numbers == number
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        left, top = int(columns[0]), int(rows[0])
        box = [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
        common = {"category_id": category.id, "iscrowd": 0, "area": int(mask.sum()), "bbox": box}
        segments.append({"id": 1000 * number + category.id, **common})
        if category.isthing:
            instances.append({"image_id": image_id, "segmentation": _run_lengths(mask), **common})
    entry = {"id": image_id, "file_name": file, "height": SIZE, "width": SIZE}
    return entry, segments, instances, of_arrays(picture.image, ids)


def _run_lengths(mask: np.ndarray) -> dict:
    """The mask as COCO's compressed run lengths, which describe it exactly."""
    encoded = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode("ascii")}


def _save(array: np.ndarray, path: str) -> None:
    Image.fromarray(array.astype(np.uint8)).save(path, compress_level=1)


def _write_annotation(root: Path, one: World, subset: str, drawn) -> tuple[dict[str, int], list[str]]:
    """Write the annotation files of a subset; return its counts and the hashes of its images."""
    images, panoptic, instances, hashes = [], [], [], []
    for image, segments, objects, found in drawn:
        images.append(image)
        panoptic.append({"image_id": image["id"], "file_name": image["file_name"], "segments_info": segments})
        instances += objects
        hashes.append(found)
    instances = [{"id": number, **annotation} for number, annotation in enumerate(instances, start=1)]
    listed = [
        {"id": c.id, "name": c.name, "isthing": int(c.isthing), "supercategory": one.super_category(c)}
        for c in one.categories()
    ]
    for kind, annotations, classes in (
        ("panoptic", panoptic, listed),
        ("instances", instances, [category for category in listed if category["isthing"]]),
    ):
        content = {"info": {"description": f"mini data, version 2, world {one.name}"}, "images": images}
        content |= {"annotations": annotations, "categories": classes}
        path = root / "annotations" / f"{kind}_{subset}.json"
        path.write_text(json.dumps(content), encoding="utf-8")  # the folder is renamed when it is complete
    segments = sum(len(annotation["segments_info"]) for annotation in panoptic)
    return {"images": len(images), "segments": segments, "instances": len(instances)}, hashes
