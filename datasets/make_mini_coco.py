#!/usr/bin/env python3
"""Draw the mini data set: a small zero-shot segmentation benchmark in COCO's own layout.

Things are compositions ``surface x shape`` ("striped disc") on grounds that are compositions ``colour x pattern``
("teal waves"). Unseen classes are held-out compositions whose parts all occur in seen classes, so transfer is possible
but not free. Class vectors are sums of part vectors, rotated, with noise: they describe the parts, not the identity.

    python datasets/make_mini_coco.py                       # datasets/mini, 2000 + 300 images of 128 x 128
    python datasets/make_mini_coco.py --train 200 --val 50 --size 96 --seed 7 --output /some/folder

Everything is drawn from one seed, image by image, so image k is the same whatever the number of images. The folder's
``mini.json`` records the arguments: the same command again does nothing, and with other arguments it refuses to replace
the data, unless ``--force`` is given.

Training data follow COCO's zero-shot protocols: panoptic and instance annotation of training leaves out every image
that shows an unseen class; semantic annotation keeps such images and marks unseen pixels as ignored (255). A second
panoptic annotation keeps the images and leaves their unseen segments out, for methods that look for them
(self-training).
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from PADing.command_line import count, positive, run_command
from PADing.data.mini import UNSEEN, VERSION, Category, categories, class_vectors, draw_image, polygons
from PADing.errors import UserError
from PADing.files import read_json, write_json

TRAIN_SHARE_WITH_UNSEEN = 0.15
IGNORE = 255
MANIFEST = "mini.json"
# Validation ids begin beyond it.
MOST_IMAGES = 1_000_000
SMALLEST, LARGEST = 32, 4096


class _Writer:
    """Collects one subset (train or val) and writes its pictures, label maps and annotation files."""

    def __init__(self, root: Path, subset: str, unseen: set[str]):
        self.root, self.subset, self.unseen = root, subset, unseen
        self.all = categories()
        # Label of a class in the semantic maps: its position among all classes as listed (beside panoptic annotation),
        # and with the seen classes first (semantic protocol; there the training maps ignore unseen classes).
        self.listed = {c.name: i for i, c in enumerate(self.all)}
        seen_first = sorted(self.all, key=lambda c: c.name in unseen)
        self.seen_first = {c.name: i for i, c in enumerate(seen_first)}
        self.images: list[dict] = []
        self.instances: list[dict] = []
        self.panoptic: list[dict] = []
        labels = (f"panoptic_semseg_{subset}", f"sem_seg_{subset}_all", f"sem_seg_{subset}_seen")
        for folder in (subset, f"panoptic_{subset}", *labels):
            (root / folder).mkdir(parents=True)

    def add(self, image_id: int, image: np.ndarray, segments) -> None:
        height, width = image.shape[:2]
        stem = f"{image_id:012d}"
        Image.fromarray(image).save(self.root / self.subset / f"{stem}.jpg", quality=95)
        ids = np.zeros((height, width), dtype=np.int64)
        # One look-up table per kind of semantic map: segment number -> label.
        numbers = np.zeros((height, width), dtype=np.uint8)
        listed, everything, seen_only = ([IGNORE] for _ in range(3))
        infos = []
        for number, (category, mask) in enumerate(segments, start=1):
            segment_id = 1000 * number + category.id
            ids[mask] = segment_id
            numbers[mask] = number
            listed.append(self.listed[category.name])
            everything.append(self.seen_first[category.name])
            seen_only.append(IGNORE if category.name in self.unseen else self.seen_first[category.name])
            ys, xs = np.nonzero(mask)
            box = [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]
            common = {"category_id": category.id, "iscrowd": 0, "area": int(mask.sum()), "bbox": box}
            infos.append({"id": segment_id, **common})
            if category.isthing:
                annotation = {"id": len(self.instances) + 1, "image_id": image_id, "segmentation": polygons(mask)}
                self.instances.append({**annotation, **common})
        self.images.append({"id": image_id, "file_name": f"{stem}.jpg", "height": height, "width": width})
        self.panoptic.append({"image_id": image_id, "file_name": f"{stem}.png", "segments_info": infos})
        colour = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
        Image.fromarray(colour).save(self.root / f"panoptic_{self.subset}" / f"{stem}.png")
        for folder, table in (
            (f"panoptic_semseg_{self.subset}", listed),
            (f"sem_seg_{self.subset}_all", everything),
            (f"sem_seg_{self.subset}_seen", seen_only),
        ):
            Image.fromarray(np.array(table, dtype=np.uint8)[numbers]).save(self.root / folder / f"{stem}.png")

    def finish(self) -> dict:
        """Write the annotation files; return the counts."""
        unseen_ids = {c.id for c in self.all if c.name in self.unseen}
        with_unseen = {
            p["image_id"] for p in self.panoptic if any(s["category_id"] in unseen_ids for s in p["segments_info"])
        }
        images_seen = [i for i in self.images if i["id"] not in with_unseen]
        panoptic_seen = [p for p in self.panoptic if p["image_id"] not in with_unseen]
        self._json(f"panoptic_{self.subset}.json", self.images, self.panoptic, self.all)
        self._json(f"panoptic_{self.subset}_seen.json", images_seen, panoptic_seen, self.all)
        left = [
            {**p, "segments_info": [s for s in p["segments_info"] if s["category_id"] not in unseen_ids]}
            for p in self.panoptic
        ]
        left = [p for p in left if p["segments_info"]]
        self._json(f"panoptic_{self.subset}_unlabelled.json", self._of(left), left, self.all)

        things = [c for c in self.all if c.isthing]
        seen_things = [c for c in things if c.name not in self.unseen]
        unseen_things = [c for c in things if c.name in self.unseen]
        self._json(f"instances_{self.subset}.json", self.images, self.instances, things)
        # Instance protocol: only unseen *things* matter; the grounds are background.
        with_unseen_thing = {a["image_id"] for a in self.instances if a["category_id"] in unseen_ids}
        seen = [a for a in self.instances if a["image_id"] not in with_unseen_thing]
        self._json(f"instances_{self.subset}_seen.json", self._of(seen), seen, seen_things)
        only = [a for a in self.instances if a["category_id"] in unseen_ids]
        self._json(f"instances_{self.subset}_unseen.json", self._of(only), only, unseen_things)
        return {
            "images": len(self.images),
            "images_without_unseen": len(images_seen),
            "segments": sum(len(p["segments_info"]) for p in self.panoptic),
            "instances": len(self.instances),
        }

    def _of(self, annotations: list[dict]) -> list[dict]:
        wanted = {a["image_id"] for a in annotations}
        return [i for i in self.images if i["id"] in wanted]

    def _json(self, name: str, images, annotations, classes: list[Category]) -> None:
        listed = [{"id": c.id, "name": c.name, "isthing": int(c.isthing), "supercategory": c.parts[1]} for c in classes]
        folder = self.root / "annotations"
        folder.mkdir(exist_ok=True)
        content = {"info": {"description": "mini COCO"}, "images": images, "annotations": annotations}
        write_json(folder / name, {**content, "categories": listed})


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
    """Draw the data set into ``out``, unless the same one is there already; return its path.

    The folder appears only when it is complete. ``out/mini.json`` records the arguments and the counts.

    Args:
        train, val: number of images. size: side in pixels. seed: of everything that is drawn.
        split: "compositional", "hard" or "tuning", see ``PADing.data.mini.UNSEEN``.
        dim, noise: of the class vectors, see ``PADing.data.mini.class_vectors``.
        force: replace a mini data set of other arguments.

    Raises:
        UserError: an argument out of range, or ``out`` holds something else.
    """
    out = Path(out)
    settings = dict(version=VERSION, train=train, val=val, size=size, seed=seed, split=split, dim=dim, noise=noise)
    _check_settings(settings)
    if _is_there(out, settings, force):
        return out
    vectors = class_vectors(dim, noise, seed)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise UserError(f"{out} cannot be made: {error.strerror}.") from error
    try:
        building.chmod(0o755)
        counts = {subset: _draw(building, subset, number, settings) for number, subset in enumerate(("train", "val"))}
        np.savez(
            building / "class_vectors.npz",
            names=np.array([c.name for c in categories()]),
            vectors=vectors,
            source=np.array(f"datasets/make_mini_coco.py, seed {seed}, noise {noise}"),
            templates=np.array([], dtype=str),
        )
        write_json(building / MANIFEST, {"settings": settings, "counts": counts})
        if out.is_dir():
            shutil.rmtree(out)  # empty, or an older mini data set that may go
        building.rename(out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
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


def _is_there(out: Path, settings: dict, force: bool) -> bool:
    """Whether ``out`` holds the data set already; UserError when it holds anything else that must stay."""
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
        raise UserError(f"{out / MANIFEST} does not name its data set. Choose another --output, or move it away.")
    other = ", ".join(f"{k} {there.get(k)} instead of {v}" for k, v in settings.items() if there.get(k) != v)
    if not force:
        raise UserError(
            f"{out} holds another mini data set ({other}). Choose another --output, or replace it with --force."
        )
    return False


def _draw(root: Path, subset: str, number: int, settings: dict) -> dict:
    """Draw and write one subset; return its counts."""
    unseen = set(UNSEEN[settings["split"]])
    writer = _Writer(root, subset, unseen)
    for index in tqdm(range(settings[subset]), desc=f"drawing mini/{subset}", unit="image", mininterval=1):
        rng = np.random.default_rng([settings["seed"], 2 + number, index])
        all_classes = subset == "val" or rng.random() < TRAIN_SHARE_WITH_UNSEEN
        allowed = [c for c in categories() if all_classes or c.name not in unseen]
        things, stuff = [c for c in allowed if c.isthing], [c for c in allowed if not c.isthing]
        writer.add(MOST_IMAGES * number + index + 1, *draw_image(rng, settings["size"], things, stuff))
    return writer.finish()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))
    where = {"dest": "out", "default": root / "mini", "type": Path}
    parser.add_argument("--output", "--out", help="folder to write (default: %(default)s)", **where)
    parser.add_argument("--train", type=positive, default=2000, help="training images (default: %(default)s)")
    parser.add_argument("--val", type=positive, default=300, help="validation images (default: %(default)s)")
    parser.add_argument("--size", type=positive, default=128, help="side of an image in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=count, default=0)
    parser.add_argument("--split", choices=sorted(UNSEEN), default="compositional")
    parser.add_argument("--dim", type=positive, default=32, help="width of the class vectors (default: %(default)s)")
    parser.add_argument("--noise", type=float, default=0.15, help="noise of the class vectors (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="replace a mini data set of other arguments")
    return run_command(_run, vars(parser.parse_args(argv)))


def _run(args: dict) -> None:
    path = make_mini_coco(**args)
    counts = read_json(path / MANIFEST, "Mini data set")["counts"]
    print(f"{path}: " + "; ".join(f"{k}: {v}" for k, v in counts.items()))


if __name__ == "__main__":
    sys.exit(main())
