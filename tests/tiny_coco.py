"""A COCO-shaped tree of a few real images, in the layout that ``docs/coco.md`` asks for before preparation.

Instances are COCO's own. Panoptic maps and stuff labels are painted from them: each image's background gets one stuff
class in its upper and one in its lower half, so every protocol has seen and unseen classes to load.
"""

import json
import os
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import yaml
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
TABLES = REPOSITORY / "datasets" / "splits" / "tables"
# (panoptic name, COCO-Stuff name); the last two are unseen in both protocols.
BACKGROUNDS = [
    ("wall-other-merged", "wall-other"),
    ("floor-wood", "floor-wood"),
    ("snow", "snow"),
    ("sand", "sand"),
    ("grass-merged", "grass"),
    ("road", "road"),
]


def make_tiny_coco(root: Path, source: Path, count: int = 12) -> Path:
    """Make ``root/coco`` from the first ``count`` of train and val in ``source`` (real samples); return ``root``."""
    panoptic = _table("coco_panoptic.yaml")
    stuff_value = {category["name"]: category["id"] for category in _table("coco_stuff.yaml")}
    panoptic_id = {category["name"]: category["id"] for category in panoptic}
    for part in ("train", "val"):
        content = json.loads((source / "real_coco" / "annotations" / f"instances_{part}2017.json").read_text())
        content["images"] = content["images"][:count]
        kept = {image["id"] for image in content["images"]}
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
        coco = root / "coco"
        for year in (2014, 2017):
            (coco / f"{part}{year}").mkdir(parents=True)
            for image in content["images"]:
                target = source / "real_coco" / f"{part}2017" / image["file_name"]
                os.symlink(target, coco / f"{part}{year}" / image["file_name"])
            _write(coco / "annotations" / f"instances_{part}{year}.json", content)
        annotations = []
        for number, image in enumerate(content["images"]):
            objects = [a for a in content["annotations"] if a["image_id"] == image["id"]]
            # Unseen backgrounds in every third image only, so that training has images left.
            upper, lower = BACKGROUNDS[number % 4], BACKGROUNDS[4 + number % 2 if number % 3 == 2 else (number + 1) % 4]
            ids, segments = _paint(image, objects, panoptic_id[upper[0]], panoptic_id[lower[0]])
            labels = np.full(ids.shape, 255, dtype=np.uint8)
            for segment in segments:
                category = segment["category_id"]
                names = {panoptic_id[upper[0]]: upper[1], panoptic_id[lower[0]]: lower[1]}
                labels[ids == segment["id"]] = stuff_value[names[category]] if category in names else category - 1
            name = Path(image["file_name"]).with_suffix(".png").name
            rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
            _save(rgb, coco / f"panoptic_{part}2017" / name)
            _save(labels, coco / "coco_stuff" / "annotations" / f"{part}2017" / name)
            annotations.append({"image_id": image["id"], "file_name": name, "segments_info": segments})
        _write(
            coco / "annotations" / f"panoptic_{part}2017.json",
            {"images": content["images"], "annotations": annotations, "categories": panoptic},
        )
    return root


def draw_source(folder: Path, count: int = 12) -> Path:
    """Make a ``source`` for ``make_tiny_coco`` without any real image: rectangles named after COCO's things.

    Every third image shows classes that are unseen in all protocols, so training has images left.
    """
    things = [category for category in _table("coco_panoptic.yaml") if category["isthing"]]
    categories = [{"id": category["id"], "name": category["name"]} for category in things]
    seen_ids, unseen_ids = (1, 3, 44, 62), (5, 17, 36, 21)  # person, car, bottle, chair; airplane, cat, snowboard, cow
    rng = np.random.default_rng(7)
    for part, first in (("train", 1000), ("val", 5000)):
        images, annotations = [], []
        for number in range(count):
            image = {"id": first + 7 * number, "file_name": f"{first + 7 * number:012d}.jpg", "height": 72, "width": 96}
            images.append(image)
            pixels = rng.integers(0, 60, (72, 96, 3), dtype=np.uint8)
            for place in range(3):
                unseen = number % 3 == 2 and place == 0
                category = (unseen_ids if unseen else seen_ids)[(number // 3 + place) % 4]
                x, y, width, height = 4 + 30 * place, 6 + 9 * place, 24, 40
                paint = np.array([3 * category % 190, 70 * place, 100], dtype=np.uint8)
                pixels[y : y + height, x : x + width] += paint
                polygon = [x, y, x + width, y, x + width, y + height, x, y + height]
                annotations.append(
                    {
                        "id": len(annotations) + first,
                        "image_id": image["id"],
                        "category_id": category,
                        "segmentation": [polygon],
                        "bbox": [x, y, width, height],
                        "area": width * height,
                        "iscrowd": 0,
                    }
                )
            path = folder / "real_coco" / f"{part}2017" / image["file_name"]
            _save(pixels, path)
        content = {"images": images, "annotations": annotations, "categories": categories}
        _write(folder / "real_coco" / "annotations" / f"instances_{part}2017.json", content)
    return folder


def _paint(image: dict, objects: list[dict], upper: int, lower: int) -> tuple[np.ndarray, list[dict]]:
    height, width = image["height"], image["width"]
    ids = np.zeros((height, width), dtype=np.int64)
    ids[: height // 2], ids[height // 2 :] = 1, 2
    categories = {1: (upper, 0), 2: (lower, 0)}
    for number, annotation in enumerate(objects, 3):
        rle = annotation["segmentation"]
        if isinstance(rle, list):
            rle = mask_util.merge(mask_util.frPyObjects(rle, height, width))
        elif isinstance(rle["counts"], list):
            rle = mask_util.frPyObjects(rle, height, width)
        ids[mask_util.decode(rle).astype(bool)] = number
        categories[number] = (annotation["category_id"], annotation["iscrowd"])
    ids *= 300  # ids beyond one byte, as COCO's are
    segments = []
    for number, (category, crowd) in categories.items():
        mask = ids == number * 300
        if mask.any():
            y, x = np.nonzero(mask)
            box = [int(x.min()), int(y.min()), int(x.max() - x.min() + 1), int(y.max() - y.min() + 1)]
            segments.append(
                {"id": number * 300, "category_id": category, "iscrowd": crowd, "area": int(mask.sum()), "bbox": box}
            )
    return ids, segments


def _table(name: str) -> list[dict]:
    return yaml.safe_load((TABLES / name).read_text(encoding="utf-8"))


def _write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _save(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
