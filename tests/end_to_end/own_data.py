"""A small data set of someone's own: instances, panoptic annotation and raw label PNGs, for classes of any kind."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 60, 80

# What the examples of docs/your_data.md speak of: ten seen things, two unseen ones, two kinds of ground.
PLAIN = [
    *({"id": i + 1, "name": name, "isthing": 1} for i, name in enumerate(
        "person dog horse car bench bird boat cup chair kite".split()
    )),
    {"id": 11, "name": "zebra", "isthing": 1},
    {"id": 12, "name": "hot dog", "isthing": 1},
    {"id": 13, "name": "snow", "isthing": 0},
    {"id": 14, "name": "sea", "isthing": 0},
]  # fmt: skip
# Ids in no order and with gaps, beyond one byte; names of several scripts, with quotes and commas; "leer" never occurs.
AWKWARD = [
    {"id": 40, "name": "Straße", "isthing": 0},
    {"id": 907, "name": "κύκλος", "isthing": 1},
    {"id": 101, "name": "leer", "isthing": 1},
    {"id": 3, "name": "四角", "isthing": 1},
    {"id": 512, "name": 'it\'s: "no", #1', "isthing": 1},
    {"id": 12, "name": "Gras", "isthing": 0},
]
NEVER = "leer"


def write_own_data(folder: Path, categories: list[dict], unseen: list[str], count: int = 6) -> Path:
    """Write below ``folder``, for both of train and val: ``images/ panoptic/ raw/ <part>.json panoptic_<part>.json``.

    ``raw`` holds label PNGs whose pixel values are category ids. Every third image shows unseen classes.
    """
    usable = [category for category in categories if category["name"] != NEVER]
    things = {flag: [c["id"] for c in usable if c["isthing"] and (c["name"] in unseen) == flag] for flag in (0, 1)}
    grounds = {flag: [c["id"] for c in usable if not c["isthing"] and (c["name"] in unseen) == flag] for flag in (0, 1)}
    rng = np.random.default_rng(1)
    for part, first in (("train", 12), ("val", 90_000)):
        images, annotations, panoptic = [], [], []
        for number in range(count):
            image_id, shows_unseen = first + 11 * number, number % 3 == 2
            name = f"Bild {image_id}"
            ground = (grounds[shows_unseen] or grounds[0])[0]
            segments = [(1 + 256 * number, ground, (0, 0, WIDTH, HEIGHT))]
            for place in range(2):
                kind = things[1] if shows_unseen and place == 0 else things[0]
                box = (5 + 38 * place, 8 + 10 * place, 30, 32)
                segments.append((70_000 + 300 * number + place, kind[(number + place) % len(kind)], box))
            ids = np.zeros((HEIGHT, WIDTH), dtype=np.int64)
            raw = np.zeros((HEIGHT, WIDTH), dtype=np.uint16)
            image = rng.integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            for segment_id, category, (x, y, width, height) in segments:
                area = (slice(y, y + height), slice(x, x + width))
                ids[area], raw[area] = segment_id, category
                image[area] = image[area] // 4 + np.array([category % 150, category * 7 % 150, 90], dtype=np.uint8)
            ids[:2], raw[:2] = 0, 255
            file_name = f"{name}.png"
            for kind, array in (("images", image), ("panoptic", _rgb(ids)), ("raw", raw)):
                (folder / kind / part).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(folder / kind / part / file_name)
            images.append({"id": image_id, "file_name": file_name, "height": HEIGHT, "width": WIDTH})
            for segment_id, category, (x, y, width, height) in segments[1:]:
                polygon = [x, y, x + width, y, x + width, y + height, x, y + height]
                annotations.append(
                    {"id": segment_id, "image_id": image_id, "category_id": category, "segmentation": [polygon],
                     "bbox": [x, y, width, height], "area": width * height, "iscrowd": 0}
                )  # fmt: skip
            infos = [{"id": segment_id, "category_id": category, "iscrowd": 0} for segment_id, category, _ in segments]
            panoptic.append({"image_id": image_id, "file_name": file_name, "segments_info": infos})
        thing_list = [category for category in categories if category["isthing"]]
        _write(folder / f"{part}.json", {"images": images, "annotations": annotations, "categories": thing_list})
        content = {"images": images, "annotations": panoptic, "categories": categories}
        _write(folder / f"panoptic_{part}.json", content)
    _write(folder / "classes.json", categories)
    return folder


def _rgb(ids: np.ndarray) -> np.ndarray:
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)


def _write(path: Path, content) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
