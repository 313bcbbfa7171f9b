"""Writes what depends on the fold: semantic maps with seen classes first, and two annotation files.

Panoptic and instance training need no files of a fold: the loader leaves out images that show an unseen class. Semantic
training keeps these images and ignores unseen pixels (255). ``panoptic_train_unlabelled.json`` keeps them, too, without
their unseen segments, for methods that search for those (self-training).
"""

import json
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from PADing.data.mini_v2.folds import unseen
from PADing.data.mini_v2.worlds import World
from PADing.data.preparation import worker_pool
from PADing.errors import UserError
from PADing.files import read_json, replacing_folder

__all__ = ["IGNORE", "make_fold"]

IGNORE = 255
_MAPS = {"train": "sem_seg_train_seen", "val": "sem_seg_val_all"}


def make_fold(world: World, fold: int, root: Path, workers: int = 1) -> None:
    """Write the folder of a fold into a complete data folder ``root``, unless it is there; it appears when complete."""
    out = root / f"fold{fold}"
    if out.is_dir():
        return
    with replacing_folder(out) as building, worker_pool(workers) if workers > 1 else nullcontext() as pool:
        for subset, folder in _MAPS.items():
            (building / folder).mkdir()
            source = root / f"panoptic_semseg_{subset}"
            images = read_json(root / "annotations" / f"panoptic_{subset}.json", "Mini data")["images"]
            names = [image["file_name"] for image in images]
            if missing := [name for name in names if not (source / name).is_file()]:
                raise UserError(f"{source / missing[0]} does not exist. Draw the data again, with a new --output.")
            write = partial(_relabel, str(source), str(building / folder), _table(world, fold, subset))
            done = pool.imap_unordered(write, names, chunksize=32) if pool else map(write, names)
            for _ in tqdm(done, total=len(names), desc=f"fold {fold}, {subset}", unit="map", mininterval=1):
                pass
        _write_annotation(world, fold, root, building)


def _table(world: World, fold: int, subset: str) -> np.ndarray:
    """The label of each label among all classes in listed order."""
    names = [category.name for category in world.categories()]
    hidden = set(unseen(world, fold))
    order = sorted(names, key=lambda name: name in hidden)
    table = np.full(256, IGNORE, dtype=np.uint8)
    for label, name in enumerate(names):
        if subset == "val" or name not in hidden:
            table[label] = order.index(name)
    return table


def _relabel(source: str, target: str, table: np.ndarray, name: str) -> None:
    with Image.open(Path(source, name)) as image:
        labels = np.asarray(image)
    Image.fromarray(table[labels]).save(Path(target, name), compress_level=1)


def _write_annotation(world: World, fold: int, root: Path, out: Path) -> None:
    hidden = {category.id for category in world.categories() if category.name in unseen(world, fold)}
    panoptic = read_json(root / "annotations" / "panoptic_train.json", "Mini data")
    kept = [[s for s in p["segments_info"] if s["category_id"] not in hidden] for p in panoptic["annotations"]]
    left = [{**p, "segments_info": seen} for p, seen in zip(panoptic["annotations"], kept, strict=True) if seen]
    _write(out / "panoptic_train_unlabelled.json", panoptic, left)

    instances = read_json(root / "annotations" / "instances_val.json", "Mini data")
    only = [annotation for annotation in instances["annotations"] if annotation["category_id"] in hidden]
    instances["categories"] = [category for category in instances["categories"] if category["id"] in hidden]
    _write(out / "instances_val_unseen.json", instances, only)


def _write(path: Path, content: dict, annotations: list[dict]) -> None:
    wanted = {annotation["image_id"] for annotation in annotations}
    images = [image for image in content["images"] if image["id"] in wanted]
    path.write_text(json.dumps({**content, "images": images, "annotations": annotations}), encoding="utf-8")
