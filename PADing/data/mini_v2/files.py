"""Writes a world of the mini data, version 2, in COCO's format, and compares its hash with the frozen one.

Folders and files are those of version 1, except that images are PNGs, and that ``fold1`` to ``fold10`` have what depends on
the fold: semantic maps, and two annotation files. Pixels of distractors have no panoptic segment and are ignored (255) in
semantic maps, as pixels without annotation are in COCO. Instance annotation does not name them, either, so whoever
segments a distractor makes a false positive.
"""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from PADing.data.mini import polygons
from PADing.data.mini_files import MANIFEST, MOST_IMAGES, is_there
from PADing.data.mini_v2.folds import unseen
from PADing.data.mini_v2.hashes import FIRST, committed, of_arrays, of_set, segment_ids
from PADing.data.mini_v2.picture import SIZE, SUBSETS, draw
from PADing.data.mini_v2.vectors import copy_vectors
from PADing.data.mini_v2.worlds import FOLDS, World, world
from PADing.data.preparation import worker_pool
from PADing.errors import UserError
from PADing.files import replacing_folder, write_json

__all__ = ["make_world"]

IGNORE = 255
VERSION = 2


def make_world(
    name: str,
    out: str | os.PathLike,
    train: int | None = None,
    val: int | None = None,
    workers: int = 1,
    force: bool = False,
) -> Path:
    """Write a world into the folder ``out``, unless it is there already; return its path.

    The folder appears when it is complete. ``out/mini.json`` records the world, the number of images and their hashes.

    Args:
        name: of the world.
        out: the folder.
        train, val: only the first images of each set; None: the whole set.
        workers: number of processes.
        force: replace other mini data.

    Raises:
        UserError: a set has fewer images, ``out`` has other content or cannot be created, or this machine draws other
            pixels than the frozen ones.
    """
    one, out = world(name), Path(out)
    sizes = {subset: _size(one, subset, number) for subset, number in zip(SUBSETS, (train, val), strict=True)}
    settings = {"version": VERSION, "world": name, **sizes}
    if is_there(out, settings, force):
        return out
    with replacing_folder(out) as building:
        counts, hashes = {}, {}
        with worker_pool(workers) if workers > 1 else nullcontext() as pool:
            for subset, size in sizes.items():
                _make_folders(building, subset)
                write = partial(_write_image, str(building), name, subset)
                done = pool.imap(write, range(size), chunksize=8) if pool else map(write, range(size))
                bar = tqdm(done, total=size, desc=f"drawing {name}/{subset}", unit="image", mininterval=1)
                counts[subset], hashes[subset] = _write_annotation(building, one, subset, bar)
        for subset, found in hashes.items():
            _check_hash(one, subset, found, sizes[subset])
        copy_vectors(one, building)
        summary = {subset: of_set(found) for subset, found in hashes.items()}
        write_json(building / MANIFEST, {"settings": settings, "counts": counts, "sha256": summary})
    return out


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
                f"first {number} images of {subset}: {of_set(hashes[:number])}, but should be {frozen[key]}). Metrics on "
                "it would not compare with those of others, so nothing is written. Report this with your versions of "
                "NumPy, OpenCV and Python, and the processor."
            )


def _label_folders(one: World, subset: str) -> Iterator[tuple[str, dict[str, int]]]:
    """Each folder of semantic maps with the label of each class, as in version 1."""
    names = [category.name for category in one.categories()]
    yield f"panoptic_semseg_{subset}", {name: label for label, name in enumerate(names)}
    for fold in range(1, FOLDS + 1):
        hidden = set(unseen(one, fold))
        ordered = {name: label for label, name in enumerate(sorted(names, key=lambda name: name in hidden))}
        if subset == "train":
            seen = {name: IGNORE if name in hidden else label for name, label in ordered.items()}
            yield f"fold{fold}/sem_seg_train_seen", seen
        else:
            yield f"fold{fold}/sem_seg_val_all", ordered


def _make_folders(root: Path, subset: str) -> None:
    maps = [f"panoptic_semseg_{subset}"]
    maps += [f"fold{i}/sem_seg_{'train_seen' if subset == 'train' else 'val_all'}" for i in range(1, FOLDS + 1)]
    for folder in (subset, f"panoptic_{subset}", "annotations", *maps):
        (root / folder).mkdir(parents=True, exist_ok=True)


def _write_image(root: str, name: str, subset: str, index: int) -> tuple[dict, list[dict], list[dict], str]:
    """Draw and write one image and its maps; its JSON entry, panoptic segments, instances and hash."""
    one = world(name)
    picture = draw(one, subset, index)
    image_id = MOST_IMAGES * SUBSETS.index(subset) + index + 1
    file = f"{image_id:012d}.png"
    ids = segment_ids(picture)
    _save(picture.image, os.path.join(root, subset, file))
    _save(np.stack([ids % 256, ids // 256, np.zeros_like(ids)], axis=-1), os.path.join(root, f"panoptic_{subset}", file))
    for folder, labels in _label_folders(one, subset):
        table = np.array([IGNORE, *(labels[c.name] for c in picture.categories)], dtype=np.uint8)
        _save(table[picture.numbers], os.path.join(root, folder, file))
    segments, instances = [], []
    for number, category in enumerate(picture.categories, start=1):
        mask = picture.numbers == number
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        left, top = int(columns[0]), int(rows[0])
        box = [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
        common = {"category_id": category.id, "iscrowd": 0, "area": int(mask.sum()), "bbox": box}
        segments.append({"id": 1000 * number + category.id, **common})
        if category.isthing:
            instances.append({"image_id": image_id, "segmentation": polygons(mask), **common})
    entry = {"id": image_id, "file_name": file, "height": SIZE, "width": SIZE}
    return entry, segments, instances, of_arrays(picture.image, ids)


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
    things = [category for category in listed if category["isthing"]]

    def write(path: str, annotations: list[dict], categories: list[dict], all_images: bool = False) -> None:
        wanted = {annotation["image_id"] for annotation in annotations}
        shown = [image for image in images if all_images or image["id"] in wanted]
        info = {"description": f"mini data, version 2, world {one.name}"}
        content = {"info": info, "images": shown, "annotations": annotations, "categories": categories}
        write_json(root / path, content)

    write(f"annotations/panoptic_{subset}.json", panoptic, listed, all_images=True)
    write(f"annotations/instances_{subset}.json", instances, things, all_images=True)
    for fold in range(1, FOLDS + 1):
        hidden = {category["id"] for category in listed if category["name"] in unseen(one, fold)}
        if subset == "train":
            kept = [[s for s in p["segments_info"] if s["category_id"] not in hidden] for p in panoptic]
            left = [{**p, "segments_info": seen} for p, seen in zip(panoptic, kept, strict=True) if seen]
            write(f"fold{fold}/panoptic_train_unlabelled.json", left, listed)
        else:
            only = [annotation for annotation in instances if annotation["category_id"] in hidden]
            write(f"fold{fold}/instances_val_unseen.json", only, [c for c in things if c["id"] in hidden])
    segments = sum(len(annotation["segments_info"]) for annotation in panoptic)
    return {"images": len(images), "segments": segments, "instances": len(instances)}, hashes
