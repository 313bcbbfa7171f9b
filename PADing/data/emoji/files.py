"""Writes scenes of emoji in COCO's format; ``datasets/make_emoji_coco.py`` is the command.

Training scenes show seen classes alone, as in COCO's instance protocol, which leaves out images with unseen ones;
validation scenes show all. Only instances are annotated: grounds have no class, and distractors are background.
"""

import json
import os
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
from PIL import Image
from tqdm import tqdm

from PADing.data.emoji.classes import sequences
from PADing.data.emoji.font import INSTALL, PINNED, find_font, hash_of, read_glyphs
from PADing.data.emoji.picture import SIZE, Scene, draw
from PADing.data.mini_files import MANIFEST, MOST_IMAGES, is_there
from PADing.data.mini_v2.hashes import of_arrays, of_set
from PADing.data.mini_v2.picture import SUBSETS
from PADing.data.preparation import worker_pool
from PADing.data.splits import Split, load_split
from PADing.errors import UserError
from PADing.files import or_shipped, read_json, replacing_folder, write_json
from PADing.leftovers import remove_leftovers

__all__ = ["FIRST", "SPLIT", "frozen", "make_emoji", "scene_hash", "write_vectors"]

VERSION = 1
SPLIT = "datasets/splits/emoji.yaml"
FIRST = 20  # scenes of a set have a hash in hashes.json
# The shipped vectors of COCO's classes, and the split file that says which class a column of the first one is.
_VECTORS = {
    "word": "embeddings/coco/word_w2v_withbg_48_17.txt",
    "clip": "embeddings/coco/coco_stuff_171_clip_vitb16.npz",
}
_COCO_SPLIT = "datasets/splits/coco_zsi_48_17.yaml"


def make_emoji(
    out: str | os.PathLike,
    train: int = 2000,
    val: int = 500,
    seed: int = 0,
    font: str | os.PathLike | None = None,
    other_font: bool = False,
    workers: int = 1,
    force: bool = False,
) -> Path:
    """Draw the data set into the folder ``out``, unless the same one is there already; return its path.

    The folder appears when it is complete. ``out/mini.json`` records the arguments, the hash of the font's pictures,
    the counts, and the hash of each set.

    Args:
        out: the folder.
        train, val: number of images.
        seed: of all random choices.
        font: the file of Noto Color Emoji; None: where systems install it.
        other_font: take another version of the font, whose scenes differ from the frozen ones.
        workers: number of processes.
        force: replace other mini data.

    Raises:
        UserError: there is no font, or one that does not fit; an argument is out of range; ``out`` has other content or
            cannot be created; this machine draws other pixels than the frozen ones.
    """
    out = Path(out)
    ranges = {"train": (1, train, MOST_IMAGES), "val": (1, val, MOST_IMAGES), "seed": (0, seed, 2**63 - 1)}
    for key, (low, value, limit) in ranges.items():
        if not low <= value <= limit:
            raise UserError(f"--{key} must be {low} to {limit}, but is {value}.")
    path = str(find_font(font))
    pictures = hash_of(_glyphs(path))
    if pictures != PINNED and not other_font:
        raise UserError(
            f"The font {path} has other pictures than version 2.042 (SHA-256 {pictures} instead of {PINNED}), so "
            f"metrics would not compare with those of others. Install that version ({INSTALL} on Debian 12), or add "
            "--other-font."
        )
    settings = {"track": "emoji", "version": VERSION, "train": train, "val": val, "seed": seed, "glyphs": pictures}
    remove_leftovers(out.parent)  # also if the data are there, because nothing else is written then
    if is_there(out, settings, force):
        return out
    with replacing_folder(out) as building, worker_pool(workers) if workers > 1 else nullcontext() as pool:
        (building / "annotations").mkdir()
        counts, hashes = {}, {}
        for subset, number in zip(SUBSETS, (train, val), strict=True):
            (building / subset).mkdir()
            write = partial(_write_image, str(building), path, seed, subset)
            done = pool.imap(write, range(number), chunksize=8) if pool else map(write, range(number))
            bar = tqdm(done, total=number, desc=f"drawing emoji/{subset}", unit="image", mininterval=1)
            counts[subset], found = _write_annotation(building, subset, bar)
            _check_hash(subset, seed, pictures, found)
            hashes[subset] = of_set(found)
        write_vectors(building)
        write_json(building / MANIFEST, {"settings": settings, "counts": counts, "sha256": hashes})
    return out


@cache
def _glyphs(path: str) -> dict[str, np.ndarray]:
    return read_glyphs(Path(path), sequences())


@cache
def _split() -> Split:
    return load_split(SPLIT)


def _scene(glyphs: dict[str, np.ndarray], seed: int, subset: str, index: int) -> Scene:
    split = _split()
    return draw(glyphs, seed, subset, index, split.seen if subset == "train" else (*split.seen, *split.unseen))


def scene_hash(glyphs: dict[str, np.ndarray], seed: int, subset: str, index: int) -> str:
    """SHA-256 of a scene: its pixels, and of each pixel 1000 x the object's number + the class's id (0: none)."""
    return _hash_of(_scene(glyphs, seed, subset, index))


def _hash_of(scene: Scene) -> str:
    ids = _category_ids()
    codes = [0, *(1000 * number + ids[name] if name else 0 for number, name in enumerate(scene.names, start=1))]
    return of_arrays(scene.image, np.array(codes)[scene.layers])


def frozen() -> dict[str, str]:
    """The hash of the first scenes of each set, with seed 0 and the pinned font."""
    return read_json(Path(__file__).with_name("hashes.json"), "Hashes of the emoji track")


def _check_hash(subset: str, seed: int, pictures: str, found: list[str]) -> None:
    if seed == 0 and pictures == PINNED and len(found) >= FIRST and of_set(found[:FIRST]) != frozen()[subset]:
        raise UserError(
            f"The first {FIRST} scenes of {subset} come out with other pixels or annotation than the frozen ones "
            f"(SHA-256 {of_set(found[:FIRST])} instead of {frozen()[subset]}), so nothing is written. Report this with "
            "your versions of NumPy, Pillow and fontTools, and the processor."
        )


@cache
def _category_ids() -> dict[str, int]:
    return {category.name: category.id for category in _split().categories}


def _write_image(root: str, font: str, seed: int, subset: str, index: int) -> tuple[dict, list[dict], str]:
    """Draw and write one image; its JSON entry, instances and hash."""
    scene = _scene(_glyphs(font), seed, subset, index)
    image_id = MOST_IMAGES * SUBSETS.index(subset) + index + 1
    file = f"{image_id:012d}.png"
    Image.fromarray(scene.image).save(Path(root, subset, file), compress_level=1)
    instances = []
    for number, name in enumerate(scene.names, start=1):
        if name:
            encoded = mask_util.encode(np.asfortranarray(scene.layers == number, dtype=np.uint8))
            instances.append(
                {
                    "image_id": image_id,
                    "category_id": _category_ids()[name],
                    "iscrowd": 0,
                    "area": int(mask_util.area(encoded)),
                    "bbox": mask_util.toBbox(encoded).tolist(),
                    "segmentation": {"size": [SIZE, SIZE], "counts": encoded["counts"].decode("ascii")},
                }
            )
    return {"id": image_id, "file_name": file, "height": SIZE, "width": SIZE}, instances, _hash_of(scene)


def _write_annotation(root: Path, subset: str, drawn) -> tuple[dict[str, int], list[str]]:
    """Write the annotation files of a subset; return its counts and the hashes of its images."""
    images, instances, hashes = [], [], []
    for image, objects, found in drawn:
        images.append(image)
        instances += objects
        hashes.append(found)
    instances = [{"id": number, **annotation} for number, annotation in enumerate(instances, start=1)]
    split, ids = _split(), _category_ids()
    names = (*split.seen, *split.unseen) if subset == "val" else split.seen
    _write(root / "annotations" / f"instances_{subset}.json", images, instances, names)
    unseen = [one for one in instances if one["category_id"] in {ids[name] for name in split.unseen}]
    counts = {"images": len(images), "instances": len(instances), "unseen instances": len(unseen)}
    if subset == "val":
        with_unseen = {one["image_id"] for one in unseen}
        left = [image for image in images if image["id"] in with_unseen]
        _write(root / "annotations" / "instances_val_unseen.json", left, unseen, split.unseen)
    return counts, hashes


def _write(path: Path, images: list[dict], annotations: list[dict], names) -> None:
    listed = [{"id": i, "name": name} for name, i in sorted(_category_ids().items(), key=lambda item: item[1])]
    content = {"info": {"description": "mini data, emoji track"}, "images": images, "annotations": annotations}
    content["categories"] = [category for category in listed if category["name"] in set(names)]
    path.write_text(json.dumps(content), encoding="utf-8")  # the folder is renamed when it is complete


def write_vectors(root: Path) -> None:
    """Write the class vectors of all tracks into a folder."""
    from PADing.data.embeddings import (  # imports PyTorch
        embedding_source,
        load_class_embeddings,
        save_class_embeddings,
    )

    coco, own = load_split(_COCO_SPLIT), _split()
    names = (*own.seen, *own.unseen)
    for track, file in _VECTORS.items():
        path = or_shipped(file)
        vectors = load_class_embeddings(path, names, (*coco.seen, *coco.unseen)).numpy()
        source, templates = embedding_source(path)
        save_class_embeddings(root / f"class_vectors_{track}.npz", names, vectors, f"{file}: {source}", templates)
