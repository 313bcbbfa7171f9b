"""Writes the mini data set in COCO's format; ``datasets/make_mini_coco.py`` is the command.

Training data follow COCO's zero-shot protocols. Panoptic and instance annotation leaves out every training image that
shows an unseen class. Semantic annotation keeps these images and marks unseen pixels as ignored (255). A second
panoptic annotation also keeps them, without their unseen segments, for methods that search for those (self-training).
"""

import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from PADing.data.mini import UNSEEN, VERSION, Category, categories, class_embeddings, draw_image, polygons
from PADing.errors import UserError
from PADing.files import read_json, replacing_folder, write_json
from PADing.leftovers import remove_leftovers

__all__ = ["MANIFEST", "is_there", "make_mini_coco"]

MANIFEST = "mini.json"
TRAIN_SHARE_WITH_UNSEEN = 0.15
IGNORE = 255
# Image ids of validation begin after it.
MOST_IMAGES = 1_000_000
SMALLEST, LARGEST = 32, 4096


def make_mini_coco(
    out: str | os.PathLike,
    train: int = 2000,
    val: int = 300,
    size: int = 128,
    seed: int = 0,
    split: str = "compositional",
    dim: int = 32,
    noise: float = 0.15,
    force: bool = False,
) -> Path:
    """Draw the data set into the folder ``out``, unless the same one is there already; return its path.

    The folder appears when it is complete. ``out/mini.json`` records the arguments and the counts.

    Args:
        out: the folder.
        train, val: number of images.
        size: side of the images in pixels.
        seed: of all random choices.
        split: a key of ``PADing.data.mini.UNSEEN``.
        dim, noise: see ``PADing.data.mini.class_embeddings``.
        force: replace a mini data set with other arguments.

    Raises:
        UserError: an argument is out of range, ``out`` has other content, or it cannot be created.
    """
    out = Path(out)
    settings = dict(version=VERSION, train=train, val=val, size=size, seed=seed, split=split, dim=dim, noise=noise)
    _check_settings(settings)
    remove_leftovers(out.parent)  # also if the data set is there, because nothing else is written then
    if is_there(out, settings, force):
        return out
    embeddings = class_embeddings(dim, noise, seed)
    with replacing_folder(out) as building:  # in place of an empty folder, or of a mini data set to replace
        counts = {subset: _draw(building, subset, number, settings) for number, subset in enumerate(("train", "val"))}
        np.savez(
            building / "class_vectors.npz",
            names=np.array([c.name for c in categories()]),
            vectors=embeddings,
            source=np.array(f"datasets/make_mini_coco.py, seed {seed}, noise {noise}"),
            templates=np.array([], dtype=str),
        )
        write_json(building / MANIFEST, {"settings": settings, "counts": counts})
    return out


def _check_settings(settings: dict) -> None:
    ranges = {"train": (1, MOST_IMAGES), "val": (1, MOST_IMAGES), "size": (SMALLEST, LARGEST), "seed": (0, 2**63)}
    for key, (low, high) in ranges.items():
        if not low <= settings[key] <= high:
            raise UserError(f"--{key} must be {low} to {high}, but is {settings[key]}.")
    if not 0 <= settings["noise"] < float("inf"):
        raise UserError(f"--noise must be a number from 0, but is {settings['noise']}.")
    if settings["split"] not in UNSEEN:
        raise UserError(f"--split must be one of {', '.join(sorted(UNSEEN))}, but is {settings['split']!r}.")


def is_there(out: Path, settings: dict, force: bool) -> bool:
    """Whether ``out`` already has this data set; UserError if it has other content that must not be replaced."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file. Choose another --output.")
    if not out.exists() or not any(out.iterdir()):
        return False
    if not (out / MANIFEST).is_file():
        raise UserError(f"{out} exists and is not a mini data set. Choose another --output, or move it away.")
    there = read_json(out / MANIFEST, "Mini data set").get("settings")
    if there == settings:
        return True
    if not isinstance(there, dict):
        raise UserError(f"{out / MANIFEST} has no `settings`. Choose another --output, or move the folder away.")
    other = ", ".join(f"{k} {there.get(k)} instead of {v}" for k, v in settings.items() if there.get(k) != v)
    if not force:
        hint = "Choose another --output, or replace it with --force."
        raise UserError(f"{out} holds another mini data set ({other}). {hint}")
    return False


def _draw(root: Path, subset: str, number: int, settings: dict) -> dict[str, int]:
    """Draw and write one subset (``number`` 0: train, 1: val); return its counts."""
    unseen = set(UNSEEN[settings["split"]])
    writer = _Writer(root, subset, unseen)
    for index in tqdm(range(settings[subset]), desc=f"drawing mini/{subset}", unit="image", mininterval=1):
        rng = np.random.default_rng([settings["seed"], 2 + number, index])
        all_classes = subset == "val" or rng.random() < TRAIN_SHARE_WITH_UNSEEN
        allowed = [c for c in categories() if all_classes or c.name not in unseen]
        things, stuff = [c for c in allowed if c.isthing], [c for c in allowed if not c.isthing]
        writer.add(MOST_IMAGES * number + index + 1, *draw_image(rng, settings["size"], things, stuff))
    return writer.finish()


class _Writer:
    """Collects one subset (train or val) and writes its images, label maps and annotation files."""

    def __init__(self, root: Path, subset: str, unseen: set[str]):
        self.root, self.subset, self.unseen = root, subset, unseen
        self.all = categories()
        self.images: list[dict] = []
        self.instances: list[dict] = []
        self.panoptic: list[dict] = []
        listed = {c.name: i for i, c in enumerate(self.all)}
        seen_first = {c.name: i for i, c in enumerate(sorted(self.all, key=lambda c: c.name in unseen))}
        # Folder of semantic maps -> class name -> label. The label is the position among all classes in listed order
        # (for panoptic data sets) or with seen classes first (semantic protocol; training maps ignore unseen classes).
        self.labels = {
            f"panoptic_semseg_{subset}": listed,
            f"sem_seg_{subset}_all": seen_first,
            f"sem_seg_{subset}_seen": {name: IGNORE if name in unseen else i for name, i in seen_first.items()},
        }
        for folder in (subset, f"panoptic_{subset}", *self.labels, "annotations"):
            (root / folder).mkdir(exist_ok=True)

    def add(self, image_id: int, image: np.ndarray, segments: list[tuple[Category, np.ndarray]]) -> None:
        """Write one image, (H, W, 3) uint8 RGB, and its maps; ``segments``: see ``draw_image``."""
        height, width = image.shape[:2]
        stem = f"{image_id:012d}"
        Image.fromarray(image).save(self.root / self.subset / f"{stem}.jpg", quality=95)
        numbers = np.zeros((height, width), dtype=np.uint8)  # of segments, from 1
        infos: list[dict] = []
        for number, (category, mask) in enumerate(segments, start=1):
            numbers[mask] = number
            box = list(cv2.boundingRect(mask.astype(np.uint8)))
            common = {"category_id": category.id, "iscrowd": 0, "area": int(mask.sum()), "bbox": box}
            infos.append({"id": 1000 * number + category.id, **common})
            if category.isthing:
                annotation = {"id": len(self.instances) + 1, "image_id": image_id, "segmentation": polygons(mask)}
                self.instances.append({**annotation, **common})
        self.images.append({"id": image_id, "file_name": f"{stem}.jpg", "height": height, "width": width})
        self.panoptic.append({"image_id": image_id, "file_name": f"{stem}.png", "segments_info": infos})
        ids = np.array([0, *(info["id"] for info in infos)])[numbers]
        colour = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
        Image.fromarray(colour).save(self.root / f"panoptic_{self.subset}" / f"{stem}.png")
        for folder, labels in self.labels.items():
            table = np.array([IGNORE, *(labels[category.name] for category, _ in segments)], dtype=np.uint8)
            Image.fromarray(table[numbers]).save(self.root / folder / f"{stem}.png")

    def finish(self) -> dict[str, int]:
        """Write the annotation files; return the counts."""
        unseen = {c.id for c in self.all if c.name in self.unseen}
        kept = [[s for s in p["segments_info"] if s["category_id"] not in unseen] for p in self.panoptic]
        without = [p for p, seen in zip(self.panoptic, kept, strict=True) if len(seen) == len(p["segments_info"])]
        left = [{**p, "segments_info": seen} for p, seen in zip(self.panoptic, kept, strict=True) if seen]
        self._write("panoptic", self.images, self.panoptic, self.all)
        self._write("panoptic", self._of(without), without, self.all, "_seen")
        self._write("panoptic", self._of(left), left, self.all, "_unlabelled")

        things = [c for c in self.all if c.isthing]
        # Instance protocol: only images with unseen *things* are left out; stuff is background.
        only = [a for a in self.instances if a["category_id"] in unseen]
        with_unseen = {a["image_id"] for a in only}
        seen = [a for a in self.instances if a["image_id"] not in with_unseen]
        self._write("instances", self.images, self.instances, things)
        self._write("instances", self._of(seen), seen, [c for c in things if c.id not in unseen], "_seen")
        self._write("instances", self._of(only), only, [c for c in things if c.id in unseen], "_unseen")
        segments = sum(len(p["segments_info"]) for p in self.panoptic)
        counts = {"images": len(self.images), "images_without_unseen": len(without)}
        return {**counts, "segments": segments, "instances": len(self.instances)}

    def _of(self, annotations: list[dict]) -> list[dict]:
        wanted = {a["image_id"] for a in annotations}
        return [i for i in self.images if i["id"] in wanted]

    def _write(self, kind: str, images: list, annotations: list, classes: list[Category], which: str = "") -> None:
        listed = [{"id": c.id, "name": c.name, "isthing": int(c.isthing), "supercategory": c.parts[1]} for c in classes]
        content = {"info": {"description": "mini COCO"}, "images": images, "annotations": annotations}
        path = self.root / "annotations" / f"{kind}_{self.subset}{which}.json"
        write_json(path, {**content, "categories": listed})
