"""A small data set of a user, as awkward as real ones."""

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

HEIGHT, WIDTH = 40, 60

# Ids with gaps, in no order; names beyond ASCII; "leer" has no annotation; "四角" and "Gras" are unseen.
CATEGORIES = [
    {"id": 40, "name": "Straße", "isthing": 0},
    {"id": 7, "name": "κύκλος", "isthing": 1},
    {"id": 101, "name": "leer", "isthing": 1},
    {"id": 3, "name": "四角", "isthing": 1},
    {"id": 12, "name": "Gras", "isthing": 0},
]
CIRCLE, EMPTY, SQUARE, STREET, GRASS = 7, 101, 3, 40, 12
UNSEEN = ["四角", "Gras"]


@dataclass
class OwnData:
    """Paths and contents of the data set below ``folder``."""

    folder: Path
    split_file: Path
    instances: dict
    panoptic: dict

    def write(self) -> "OwnData":
        """Write the annotation again after a test has changed it."""
        (self.folder / "instances.json").write_text(json.dumps(self.instances), encoding="utf-8")
        (self.folder / "panoptic.json").write_text(json.dumps(self.panoptic), encoding="utf-8")
        return self

    def split(self, **changes) -> dict:
        """The content of the split file, with ``changes`` at the top level."""
        return {**yaml.safe_load(self.split_file.read_text(encoding="utf-8")), **changes}


def _rectangle(x0, y0, x1, y1):
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def _rle(mask):
    """Uncompressed COCO RLE of a mask, counted by hand: column by column, zeros first."""
    counts, value, run = [], 0, 0
    for pixel in mask.T.ravel():
        if pixel != value:
            counts.append(run)
            value, run = pixel, 0
        run += 1
    return {"size": list(mask.shape), "counts": [*map(int, counts), int(run)]}


def make_own(folder: Path) -> OwnData:
    """Images: 5 an unseen thing, 12 street alone, 77 with an unseen crowd, 300 with RLE, 900 two circles."""
    for name in ("images", "panoptic", "labels"):
        (folder / name).mkdir(parents=True)
    crowd = np.zeros((HEIGHT, WIDTH), dtype=int)
    crowd[30:35, 2:9] = 1
    blob = np.zeros((HEIGHT, WIDTH), dtype=int)
    blob[4:14, 20:45] = 1
    objects = {
        900: [(CIRCLE, [_rectangle(5, 5, 20, 15)], 0), (CIRCLE, [[1, 1, 2], _rectangle(30, 20, 50, 38)], 0)],
        5: [(SQUARE, [_rectangle(10, 10, 30, 30)], 0)],
        77: [(CIRCLE, [_rectangle(40, 2, 58, 20)], 0), (SQUARE, _rle(crowd), 1)],
        12: [],
        300: [(CIRCLE, _rle(blob), 0), (CIRCLE, [[3, 3, 4, 4]], 0)],
    }
    rng = np.random.default_rng(0)
    images, annotations, panoptic = [], [], []
    for image_id, entries in objects.items():
        image = rng.integers(0, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        ids = np.full((HEIGHT, WIDTH), 1000 + image_id, dtype=np.int64)  # street everywhere
        segments = [{"id": 1000 + image_id, "category_id": STREET, "iscrowd": 0}]
        for category_id, segmentation, crowd_flag in entries:
            annotation_id = len(annotations) + 1
            mask = _mask(segmentation)
            image[mask] = (250, 30 * annotation_id % 250, 200)
            annotations.append(
                {
                    "id": annotation_id,
                    "image_id": image_id,
                    "category_id": category_id,
                    "segmentation": segmentation,
                    "iscrowd": crowd_flag,
                    "bbox": _box(mask),
                    "area": int(mask.sum()),
                }
            )
            if mask.any():
                ids[mask] = annotation_id
                segments.append({"id": annotation_id, "category_id": category_id, "iscrowd": crowd_flag})
        ids[:2] = 0  # void
        name = f"pic_{image_id}"
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
        rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
        Image.fromarray(rgb).save(folder / "panoptic" / f"{name}.png")
        labels = np.full((HEIGHT, WIDTH), 255, dtype=np.uint8)
        order = [STREET, CIRCLE, EMPTY, SQUARE, GRASS]  # seen first, then unseen
        for segment in segments:
            labels[ids == segment["id"]] = order.index(segment["category_id"])
        Image.fromarray(labels).save(folder / "labels" / f"{name}.png")
        images.append({"id": image_id, "file_name": f"{name}.png", "height": HEIGHT, "width": WIDTH})
        panoptic.append({"image_id": image_id, "file_name": f"{name}.png", "segments_info": segments})
    things = [dict(category) for category in CATEGORIES if category["isthing"]]
    split_file = folder / "split.yaml"
    data_sets = []
    for role in ("train", "val"):
        common = {"role": role, "image_root": "./images"}
        data_sets += [
            {"name": f"own_{role}_instance", "kind": "instance", "json": "./instances.json", **common},
            {
                "name": f"own_{role}_panoptic",
                "kind": "panoptic",
                "panoptic_root": "./panoptic",
                "panoptic_json": "./panoptic.json",
                **common,
            },
            {"name": f"own_{role}_semantic", "kind": "semantic", "sem_seg_root": "./labels", **common},
        ]
    split_file.write_text(
        yaml.safe_dump(
            {"name": "own", "categories": CATEGORIES, "unseen": UNSEEN, "data_sets": data_sets}, allow_unicode=True
        ),
        encoding="utf-8",
    )
    return OwnData(
        folder,
        split_file,
        {"images": images, "annotations": annotations, "categories": things},
        {"images": images, "annotations": panoptic, "categories": copy.deepcopy(CATEGORIES)},
    ).write()


def forget_own() -> None:
    """Remove its data sets from the catalogs: another test registers the same names from another folder."""
    for name in [name for name in DatasetCatalog.list() if name.startswith("own_")]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def _mask(segmentation) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    if isinstance(segmentation, dict):
        flat = np.repeat(np.arange(len(segmentation["counts"])) % 2 == 1, segmentation["counts"])
        return flat.reshape(WIDTH, HEIGHT).T
    for polygon in segmentation:
        if len(polygon) == 8:
            x0, y0, x1, y1 = *polygon[:2], *polygon[4:6]
            mask[y0:y1, x0:x1] = True
    return mask


def _box(mask) -> list[int]:
    if not mask.any():
        return [0, 0, 1, 1]
    y, x = np.nonzero(mask)
    return [int(x.min()), int(y.min()), int(x.max() - x.min() + 1), int(y.max() - y.min() + 1)]
