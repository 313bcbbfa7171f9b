#!/usr/bin/env python3
"""Draw the mini data set: a small zero-shot segmentation benchmark in COCO's own layout.

Things are compositions ``surface x shape`` ("striped disc") on grounds that are compositions ``colour x pattern``
("teal waves"). Unseen classes are held-out compositions whose parts all occur in seen classes, so transfer is possible
but not free. Class vectors are sums of part vectors, rotated, with noise: they describe the parts, not the identity.

    python datasets/make_mini_coco.py                       # datasets/mini, 2000 + 300 images of 128 x 128
    python datasets/make_mini_coco.py --train 200 --val 50 --size 96 --seed 7 --out /some/folder

Everything is drawn from one seed, image by image, so image k is the same whatever the number of images.

Training data follow COCO's zero-shot protocols: panoptic and instance annotation of training leaves out every image
that shows an unseen class; semantic annotation keeps such images and marks unseen pixels as ignored (255). A second
panoptic annotation keeps the images and leaves their unseen segments out, for methods that look for them
(self-training).
"""

import argparse
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

VERSION = 1

SHAPES = ("disc", "bar", "triangle", "star")
SURFACES = ("plain", "striped", "dotted", "checkered")
PATTERNS = ("waves", "sand", "bricks")
COLOURS = ("brown", "teal")

# Compositional: every part of an unseen class occurs in at least two seen classes.
# Hard: stars are seen with one surface only, so "star" must be told apart from "plain" without any other example.
# Tuning: like compositional with other unseen classes, for choosing settings without a look at those of the reports.
UNSEEN = {
    "compositional": ("striped disc", "dotted bar", "checkered triangle", "plain star", "teal waves", "brown sand"),
    "hard": ("striped star", "dotted star", "checkered star", "plain disc", "teal waves", "brown sand"),
    "tuning": ("checkered disc", "plain bar", "striped triangle", "dotted star", "brown waves", "teal sand"),
}

# Two colours per surface and ground (RGB), jittered per object.
SURFACE_RGB = {
    "plain": ((205, 50, 45), (205, 50, 45)),
    "striped": ((50, 80, 205), (225, 228, 235)),
    "dotted": ((232, 190, 40), (60, 45, 30)),
    "checkered": ((40, 150, 70), (20, 30, 25)),
}
GROUND_RGB = {"brown": ((150, 115, 85), (118, 86, 60)), "teal": ((95, 150, 155), (66, 112, 122))}

MAX_ROTATION = np.pi / 5

TRAIN_SHARE_WITH_UNSEEN = 0.15
IGNORE = 255


@dataclass(frozen=True)
class Category:
    """One class; ``id`` is the data set's id (with gaps, as COCO's have)."""

    id: int
    name: str
    isthing: bool
    parts: tuple[str, str]


def categories() -> list[Category]:
    """All classes, things first, ids ascending."""
    things = [(f"{surface} {shape}", (surface, shape)) for shape in SHAPES for surface in SURFACES]
    stuff = [(f"{colour} {pattern}", (colour, pattern)) for pattern in PATTERNS for colour in COLOURS]
    first_stuff_id = 10 * (1 + len(things) // 10) + 1
    return [Category(i + 1, name, True, parts) for i, (name, parts) in enumerate(things)] + [
        Category(first_stuff_id + i, name, False, parts) for i, (name, parts) in enumerate(stuff)
    ]


def class_vectors(dim: int, noise: float, seed: int) -> np.ndarray:
    """(C, dim) float32 unit vectors: the sum of two part vectors and a thing/stuff vector, noise, and a rotation.

    Args:
        dim: width, at least the number of parts + 2.
        noise: length of the class-specific part relative to that of the parts.
    """
    rng = np.random.default_rng([seed, 1])
    parts = (*SHAPES, *SURFACES, *PATTERNS, *COLOURS, "thing", "stuff")
    if dim < len(parts):
        raise SystemExit(f"--dim {dim} is too small: {len(parts)} parts need at least {len(parts)} dimensions.")
    code = np.zeros((len(categories()), dim))
    for row, category in zip(code, categories(), strict=True):
        for part in (*category.parts, "thing" if category.isthing else "stuff"):
            row[parts.index(part)] = 1.0
    direction = rng.standard_normal(code.shape)
    code += noise * np.sqrt(3.0) * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    rotation, _ = np.linalg.qr(rng.standard_normal((dim, dim)))
    code = code @ rotation
    return (code / np.linalg.norm(code, axis=1, keepdims=True)).astype(np.float32)


# ---- drawing


def _inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Signed measure of the unit shape at (u, v): positive inside, zero on the outline, falling about 1 per unit."""
    if shape == "disc":
        return 0.95 - np.hypot(u, v)
    if shape == "bar":
        return np.minimum(1.05 - abs(u), 0.42 - abs(v))
    if shape == "triangle":
        edges = [u * np.cos(a) + v * np.sin(a) for a in (np.pi / 2, np.pi * 7 / 6, np.pi * 11 / 6)]
        return 0.55 - np.maximum.reduce(edges)
    if shape == "star":
        # Five arms: fold the angle into one half arm, then test against the straight edge from tip to notch.
        radius, angle = np.hypot(u, v), np.arctan2(v, u)
        half = abs((angle + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
        tip, notch = np.array([1.05, 0.0]), 0.45 * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)])
        normal = np.array([notch[1] - tip[1], tip[0] - notch[0]])
        normal /= np.linalg.norm(normal)
        return tip @ normal - radius * (np.cos(half) * normal[0] + np.sin(half) * normal[1])
    raise ValueError(shape)


def _surface(kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Share of the second colour at object coordinates (u, v), in 0..1."""
    if kind == "plain":
        return np.zeros_like(u)
    if kind == "striped":
        return (np.floor(u * 3.2) % 2).astype(float)
    if kind == "dotted":
        return (np.hypot((u * 2.4) % 1 - 0.5, (v * 2.4) % 1 - 0.5) < 0.30).astype(float)
    return ((np.floor(u * 2.8) + np.floor(v * 2.8)) % 2).astype(float)


def _ground(pattern: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Share of the second ground colour at pixels (x, y), in 0..1."""
    phase = rng.uniform(0, 2 * np.pi, 2)
    if pattern == "waves":
        return 0.5 + 0.5 * np.sin(y * 0.75 + 2.0 * np.sin(x * 0.15 + phase[0]) + phase[1])
    if pattern == "sand":
        return (rng.random(x.shape) < 0.35).astype(float)
    row = np.floor(y / 8 + phase[0])
    along = x / 16 + 0.5 * (row % 2) + phase[1]
    return ((y / 8 + phase[0]) % 1 < 0.22) | (along % 1 < 0.13)


def _mix(colours, share: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    first, second = (np.clip(np.array(c) + rng.uniform(-18, 18, 3), 0, 255) for c in colours)
    return first + (second - first) * np.asarray(share, dtype=float)[..., None]


def draw_image(rng: np.random.Generator, size: int, things: list[Category], stuff: list[Category]):
    """One picture.

    Returns:
        image (size, size, 3) uint8 RGB, and a list of (Category, (size, size) bool mask); masks do not overlap and
        cover the whole picture. Thing masks have no holes, so polygons describe them.
    """
    y, x = np.mgrid[0:size, 0:size].astype(float)
    grounds = [stuff[i] for i in rng.choice(len(stuff), size=min(len(stuff), rng.integers(1, 3)), replace=False)]
    owner = np.zeros((size, size), dtype=int)
    if len(grounds) == 2:
        angle = rng.uniform(0, 2 * np.pi)
        across = (x - size / 2) * np.cos(angle) + (y - size / 2) * np.sin(angle)
        along = (y - size / 2) * np.cos(angle) - (x - size / 2) * np.sin(angle)
        bend = 0.06 * size * np.sin(along * 2 * np.pi / size + rng.uniform(0, 2 * np.pi))
        owner = (across + bend > rng.uniform(-0.2, 0.2) * size).astype(int)
    image = np.zeros((size, size, 3))
    for i, category in enumerate(grounds):
        colour, pattern = category.parts
        region = owner == i
        image[region] = _mix(GROUND_RGB[colour], _ground(pattern, x, y, rng), rng)[region]

    objects: list[tuple[Category, np.ndarray]] = []
    for _ in range(rng.integers(2, 5)):
        category = things[rng.integers(len(things))]
        surface, shape = category.parts
        for _attempt in range(8):
            radius = size * rng.uniform(0.13, 0.25)
            cx, cy = rng.uniform(0.5 * radius, size - 0.5 * radius, 2)
            angle = rng.uniform(-MAX_ROTATION, MAX_ROTATION)
            u = ((x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)) / radius
            v = ((y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)) / radius
            measure = _inside(shape, u, v) * radius
            mask = measure > 0
            if _fits(mask, objects):
                objects = [(c, m & ~mask) for c, m in objects] + [(category, mask)]
                paint = _mix(SURFACE_RGB[surface], _surface(surface, u, v), rng) * rng.uniform(0.85, 1.1)
                alpha = np.clip(measure + 0.5, 0, 1)[..., None]
                image = image * (1 - alpha) + np.clip(paint, 0, 255) * alpha
                break
    image += rng.normal(0, 5, image.shape)
    covered = np.logical_or.reduce([m for _, m in objects]) if objects else np.zeros((size, size), dtype=bool)
    segments = [(c, (owner == i) & ~covered) for i, c in enumerate(grounds)] + objects
    return np.clip(image + 0.5, 0, 255).astype(np.uint8), [(c, m) for c, m in segments if m.any()]


def _fits(mask: np.ndarray, objects) -> bool:
    """Whether a new object in front leaves each earlier one at least two thirds visible and without a hole."""
    if mask.sum() < 40:
        return False
    for _, other in objects:
        rest = other & ~mask
        if rest.sum() < max(40, 0.67 * other.sum()) or _has_hole(rest):
            return False
    return True


def _has_hole(mask: np.ndarray) -> bool:
    _, hierarchy = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return bool((hierarchy[0, :, 3] >= 0).any())


def polygons(mask: np.ndarray) -> list[list[float]]:
    """COCO polygons whose rasterisation is ``mask``: outlines are traced four times finer than the pixels."""
    fine = np.kron(mask.astype(np.uint8), np.ones((4, 4), dtype=np.uint8))
    contours, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [[float(p) for p in ((c[:, 0] + 0.5) / 4).ravel()] for c in contours if len(c) >= 3]


# ---- writing


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
        listed = [
            {"id": c.id, "name": c.name, "isthing": int(c.isthing), "supercategory": c.parts[1]} for c in classes
        ]
        folder = self.root / "annotations"
        folder.mkdir(exist_ok=True)
        content = {"info": {"description": "mini COCO"}, "images": images, "annotations": annotations}
        (folder / name).write_text(json.dumps({**content, "categories": listed}))


def make_mini_coco(
    out: str | os.PathLike,
    train: int = 2000,
    val: int = 300,
    size: int = 128,
    seed: int = 0,
    split: str = "compositional",
    dim: int = 32,
    noise: float = 0.15,
) -> Path:
    """Draw the data set into ``out``, unless the same one is there already; return its path.

    The folder appears only when it is complete. ``out/mini.json`` records the arguments and the counts.

    Args:
        train, val: number of images. size: side in pixels. seed: of everything that is drawn.
        split: "compositional", "hard" or "tuning", see ``UNSEEN``.
        dim, noise: of the class vectors, see :func:`class_vectors`.

    Raises:
        FileExistsError: ``out`` exists but was not written by this script.
    """
    out = Path(out)
    settings = dict(version=VERSION, train=train, val=val, size=size, seed=seed, split=split, dim=dim, noise=noise)
    manifest = out / "mini.json"
    if manifest.is_file():
        if json.loads(manifest.read_text())["settings"] == settings:
            return out
        shutil.rmtree(out)
    elif out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} exists and is not a mini data set; choose another --out or move it away.")

    unseen = set(UNSEEN[split])
    building = out.with_name(out.name + ".partial")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    counts = {}
    for number, (subset, images) in enumerate((("train", train), ("val", val))):
        writer = _Writer(building, subset, unseen)
        for index in tqdm(range(images), desc=f"drawing mini/{subset}", unit="image", mininterval=1):
            rng = np.random.default_rng([seed, 2 + number, index])
            all_classes = subset == "val" or rng.random() < TRAIN_SHARE_WITH_UNSEEN
            allowed = [c for c in categories() if all_classes or c.name not in unseen]
            picture = draw_image(rng, size, [c for c in allowed if c.isthing], [c for c in allowed if not c.isthing])
            writer.add(1_000_000 * number + index + 1, *picture)
        counts[subset] = writer.finish()
    np.savez(
        building / "class_vectors.npz",
        names=np.array([c.name for c in categories()]),
        vectors=class_vectors(dim, noise, seed),
        source=np.array(f"datasets/make_mini_coco.py, seed {seed}, noise {noise}"),
        templates=np.array([], dtype=str),
    )
    (building / "mini.json").write_text(json.dumps({"settings": settings, "counts": counts}, indent=1))
    if out.exists():
        out.rmdir()
    building.rename(out)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))
    parser.add_argument("--out", default=root / "mini", type=Path, help="folder to write (default: %(default)s)")
    parser.add_argument("--train", type=int, default=2000, help="training images (default: %(default)s)")
    parser.add_argument("--val", type=int, default=300, help="validation images (default: %(default)s)")
    parser.add_argument("--size", type=int, default=128, help="side of an image in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=sorted(UNSEEN), default="compositional")
    parser.add_argument("--dim", type=int, default=32, help="width of the class vectors (default: %(default)s)")
    parser.add_argument("--noise", type=float, default=0.15, help="noise of the class vectors (default: %(default)s)")
    args = parser.parse_args()
    path = make_mini_coco(**vars(args))
    counts = json.loads((path / "mini.json").read_text())["counts"]
    print(f"{path}: " + "; ".join(f"{k}: {v}" for k, v in counts.items()))


if __name__ == "__main__":
    main()
