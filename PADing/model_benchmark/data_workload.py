"""The tasks of the data benchmark: training mappers and evaluators, on drawn images or on COCO's.

``workload.py`` loads this file by its path, so that an older checkout is measured by the same tasks. It uses only
long-lived functions of the package. A task returns the function to measure, and the number of images of a call.
"""

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from PIL import Image

IMAGES, DRAWS = 6, 4  # drawn images, and random crops of each of them in a call
COPIES = 4  # of each image in evaluation, so that the metrics at its end weigh less
THINGS, STUFF, IGNORED = 80, 53, 255  # as many classes as COCO's panoptic data have; the label of none
PREDICTED = 100  # instances of an image
NAME = "drawn_for_the_benchmark"
Task = tuple[Callable[[], object], int]


def load(args: argparse.Namespace, kind: str) -> Task:
    """A training mapper; the same random numbers in each call."""
    records = _records_of_coco(args.coco, kind) if args.coco else _drawn(args, kind)
    mapper = _semantic_mapper(args.root) if kind == "semantic" else _mapper_with_jitter(kind)

    def run():
        np.random.seed(0)
        random.seed(0)
        for _ in range(DRAWS):
            for record in records:
                mapper(dict(record))

    return run, DRAWS * len(records)


def _mapper_with_jitter(kind: str) -> Callable:
    """To 1024 x 1024."""
    from PADing.config import load_config
    from PADing.data.dataset_mappers import build_mapper

    return build_mapper(load_config("", ["INPUT.FORMAT", "RGB", "INPUT.DATASET_MAPPER_NAME", f"coco_{kind}_lsj"]))


def _semantic_mapper(root: Path) -> Callable:
    """With the settings for COCO-Stuff: crops of 640 x 640, and changes of color."""
    from PADing.config import load_config
    from PADing.data.dataset_mappers import MaskFormerSemanticDatasetMapper
    from PADing.data.dataset_mappers.base import resize_and_crop

    cfg = load_config(str(root / "configs/semantic-segmentation/Base-COCOStuff-171.yaml"), ["INPUT.FORMAT", "RGB"])
    options = {**resize_and_crop(cfg, IGNORED), "ignore_label": IGNORED, "num_labels": THINGS + STUFF}
    return MaskFormerSemanticDatasetMapper(image_format="RGB", **options)


def evaluate(args: argparse.Namespace, kind: str) -> Task:
    """An evaluator: all that it does with the predictions for each image, and the metrics in the end."""
    from PADing import evaluation

    records = _drawn(args, kind, COPIES)
    rng, different = np.random.default_rng(1), records[::COPIES]
    evaluator: Any
    outputs: list[dict]
    if kind == "semantic":
        evaluator = evaluation.SemSegGzeroEvaluator(NAME, distributed=False)
        outputs = [{"sem_seg": _scores(record, rng)} for record in different]
    elif kind == "instance":
        evaluator = evaluation.InsSegzeroEvaluator(NAME, distributed=False)
        outputs = [{"instances": _instances(record, rng)} for record in different]
    else:
        evaluator = evaluation.PanopticzeroEvaluator(NAME, distributed=False)
        outputs = [{"panoptic_seg": _panoptic(record)} for record in different]

    def run():
        evaluator.reset()
        for number, record in enumerate(records):
            evaluator.process([record], [outputs[number // COPIES]])
        return evaluator.evaluate()

    return run, len(records)


def _drawn(args: argparse.Namespace, kind: str, copies: int = 1) -> list[dict]:
    """Records of drawn images, with ``args.objects`` ellipses on bands of stuff; registered as ``NAME``.

    Each image has ``copies`` records, one after the other, with ids of their own and the same files.
    """
    folder = args.output.parent / "drawn"
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    records, images, instances, panoptic = [], [], [], []
    for number in range(1, IMAGES + 1):
        height, width = (args.height, args.width) if number % 3 else (args.width, args.height)  # a third is upright
        _picture((height, width), rng).save(folder / f"{number}.jpg", quality=92)
        polygons, ids = _objects(args.objects, (height, width), rng)
        _save_ids(folder / f"{number}.png", ids)
        Image.fromarray((ids % 1000).astype(np.uint8)).save(folder / f"{number}_labels.png")
        segments = [{"id": i, "category_id": i % 1000 + 1} for i in np.unique(ids).tolist()]
        found = [_annotation(0, 0, polygon, rng) for polygon in polygons]
        for image_id in range(100 * number, 100 * number + copies):
            image = {"id": image_id, "file_name": f"{number}.jpg", "height": height, "width": width}
            own = [{**a, "id": 1000 * image_id + i, "image_id": image_id} for i, a in enumerate(found)]
            images.append(image)
            instances += own
            panoptic.append({"image_id": image_id, "file_name": f"{number}.png", "segments_info": segments})
            records.append(_record(folder, number, image, own, segments, kind))
    categories: list[dict] = [
        {"id": i, "name": f"class {i}", "isthing": int(i <= THINGS)} for i in range(1, THINGS + STUFF + 1)
    ]
    for name, annotations, classes in (
        ("instances", instances, categories[:THINGS]),
        ("panoptic", panoptic, categories),
    ):
        content = {"images": images, "annotations": annotations, "categories": classes}
        (folder / f"{name}.json").write_text(json.dumps(content))
    _register(records, [category["name"] for category in categories], folder, kind)
    return records


def _record(folder: Path, number: int, image: dict, objects: list[dict], segments: list[dict], kind: str) -> dict:
    record = {**image, "image_id": image["id"], "file_name": str(folder / f"{number}.jpg")}
    if kind == "instance":
        record["annotations"] = [{**a, "category_id": a["category_id"] - 1, "bbox_mode": 1} for a in objects]
    elif kind == "panoptic":
        record["pan_seg_file_name"] = str(folder / f"{number}.png")
        record["segments_info"] = [{**s, "category_id": s["category_id"] - 1} for s in segments]
    else:
        record["sem_seg_file_name"] = str(folder / f"{number}_labels.png")
    return record


def _picture(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Smooth noise with some grain."""
    height, width = size
    noise = Image.fromarray(rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8))
    pixels = np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray((pixels + rng.integers(-12, 13, (height, width, 3))).clip(0, 255).astype(np.uint8))


def _objects(count: int, size: tuple[int, int], rng: np.random.Generator) -> tuple[list[list[float]], np.ndarray]:
    """Polygons of ellipses, and segment ids (H, W): bands of stuff below them."""
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    bands = rng.integers(THINGS, THINGS + STUFF, 4)
    ids = 1_000_000 + 1000 * np.arange(4)[rows * 4 // height] + bands[rows * 4 // height]
    polygons = []
    for i in range(count):
        y, x = rng.uniform(0, 1, 2) * size
        b, a = (0.02 + 0.3 * rng.random(2) ** 2) * size
        outline = np.stack([x + a * np.cos(angles), y + b * np.sin(angles)], axis=1).clip(0, (width, height))
        polygons.append(outline.round(2).ravel().tolist())
        inside = ((rows - y) / b) ** 2 + ((columns - x) / a) ** 2 < 1
        ids[inside] = 2_000_000 + 1000 * i + rng.integers(THINGS)
    return polygons, ids


def _annotation(number: int, image_id: int, polygon: list[float], rng: np.random.Generator) -> dict:
    x, y = np.reshape(polygon, (-1, 2)).T
    box = [float(value) for value in (x.min(), y.min(), x.max() - x.min(), y.max() - y.min())]
    return {
        "id": number, "image_id": image_id, "category_id": int(rng.integers(1, THINGS + 1)), "iscrowd": 0,
        "bbox": box, "area": box[2] * box[3] * np.pi / 4, "segmentation": [polygon],
    }  # fmt: skip


def _register(records: list[dict], names: list[str], folder: Path, kind: str) -> None:
    DatasetCatalog.register(NAME, lambda: records)
    own = {i: i - 1 for i in range(1, len(names) + 1)}
    every = {"stuff_classes": names, "stuff_dataset_id_to_contiguous_id": own, "ignore_label": IGNORED}
    things = {
        "thing_classes": names[:THINGS],
        "thing_dataset_id_to_contiguous_id": {i: j for i, j in own.items() if j < THINGS},
    }
    files = {"panoptic_json": str(folder / "panoptic.json"), "panoptic_root": str(folder), "label_divisor": 1000}
    chosen: dict[str, dict] = {
        "semantic": every,
        "instance": {**things, "json_file": str(folder / "instances.json")},
        "panoptic": {**every, **things, **files},
    }
    MetadataCatalog.get(NAME).set(**chosen[kind])


def _save_ids(path: Path, ids: np.ndarray) -> None:
    channels = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1)
    Image.fromarray(channels.astype(np.uint8)).save(path)


def _records_of_coco(folder: Path, kind: str) -> list[dict]:
    """Records of ``val2017`` in a folder of COCO's layout; classes are numbered in the order of the annotation."""
    name = {"instance": "instances_val2017.json", "panoptic": "panoptic_val2017.json"}[kind]
    content = json.loads((folder / "annotations" / name).read_text())
    number = {category["id"]: i for i, category in enumerate(content["categories"])}
    records = {
        image["id"]: {
            "file_name": str(folder / "val2017" / image["file_name"]), "image_id": image["id"],
            "height": image["height"], "width": image["width"], "annotations": [],
        }
        for image in content["images"]
    }  # fmt: skip
    for item in content["annotations"]:
        record = records[item["image_id"]]
        if kind == "instance":
            record["annotations"].append({**item, "category_id": number[item["category_id"]], "bbox_mode": 1})
        else:
            record["pan_seg_file_name"] = str(folder / "panoptic_val2017" / item["file_name"])
            record["segments_info"] = [{**s, "category_id": number[s["category_id"]]} for s in item["segments_info"]]
    needed = "annotations" if kind == "instance" else "segments_info"
    return [record for record in records.values() if record.get(needed)]


def _scores(record: dict, rng: np.random.Generator) -> torch.Tensor:
    """Smooth scores of all classes (C, H, W), and high ones where the class is."""
    labels = torch.from_numpy(np.asarray(Image.open(record["sem_seg_file_name"])).astype(np.int64))
    coarse = torch.from_numpy(rng.random((1, THINGS + STUFF, 20, 20), dtype=np.float32))
    scores = torch.nn.functional.interpolate(coarse, labels.shape, mode="bilinear")[0]
    return scores.scatter_add_(0, labels[None], torch.full((1, *labels.shape), 0.7))


def _instances(record: dict, rng: np.random.Generator) -> Instances:
    """``PREDICTED`` masks: those of the annotation, moved a little, and ellipses elsewhere."""
    size = (record["height"], record["width"])
    rows, columns = np.mgrid[: size[0], : size[1]]
    masks = np.zeros((PREDICTED, *size), dtype=bool)
    for mask in masks:
        y, x = rng.uniform(0, 1, 2) * size
        b, a = (0.02 + 0.3 * rng.random(2) ** 2) * size
        mask[:] = ((rows - y) / b) ** 2 + ((columns - x) / a) ** 2 < 1
    labels = torch.from_numpy(rng.integers(0, THINGS, PREDICTED))
    boxes = torch.zeros(PREDICTED, 4)
    for i, annotation in enumerate(record["annotations"][:PREDICTED]):
        x, y, width, height = annotation["bbox"]
        labels[i] = annotation["category_id"]
        boxes[i] = torch.tensor([x, y, x + width, y + height])
        a, b = max(width, 1) / 2, max(height, 1) / 2
        masks[i] = ((rows - y - b) / b) ** 2 + ((columns - x - 1.05 * a) / a) ** 2 < 1
    scores = torch.from_numpy(rng.random(PREDICTED, dtype=np.float32))
    return Instances(
        size, pred_boxes=Boxes(boxes), pred_masks=torch.from_numpy(masks), pred_classes=labels, scores=scores
    )


def _panoptic(record: dict) -> tuple[torch.Tensor, list[dict]]:
    """The annotation, moved by some pixels."""
    rgb = np.asarray(Image.open(record["pan_seg_file_name"])).astype(np.int64)
    ids = np.roll(rgb @ [1, 256, 65536], (3, 5), axis=(0, 1))
    present = np.unique(ids).tolist()
    number = {id_: i for i, id_ in enumerate(present, 1)}
    label = {s["id"]: s["category_id"] for s in record["segments_info"]}
    segments = [
        {"id": number[id_], "category_id": label[id_], "isthing": label[id_] < THINGS}
        for id_ in present
        if id_ in label
    ]
    found = np.searchsorted(present, ids) + 1
    return torch.from_numpy(np.where(np.isin(ids, list(label)), found, 0).astype(np.int32)), segments


TASKS: dict[str, tuple[Callable[[argparse.Namespace, str], Task], str]] = {
    "load-semantic": (load, "semantic"),
    "load-instance": (load, "instance"),
    "load-panoptic": (load, "panoptic"),
    "evaluate-semantic": (evaluate, "semantic"),
    "evaluate-instance": (evaluate, "instance"),
    "evaluate-panoptic": (evaluate, "panoptic"),
}
