"""Data sets in COCO's panoptic format: one PNG of segment ids for each image, and a JSON file about the segments."""

import functools
import json
import os

from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from .coco import load_coco_json, load_sem_seg


def load_coco_panoptic_json(json_file: str, image_dir: str, gt_dir: str, meta: dict) -> list[dict]:
    """The images of a panoptic annotation file, in its order: ``file_name image_id pan_seg_file_name segments_info``.

    Images in ``image_dir`` are called like their PNGs in ``gt_dir``, but ``.jpg``. Segments have ``isthing`` and
    contiguous category ids, by the two maps ``{thing,stuff}_dataset_id_to_contiguous_id`` of ``meta``.
    """
    kinds = {
        category: {"category_id": number, "isthing": isthing}
        for key, isthing in (("stuff", False), ("thing", True))
        for category, number in meta[f"{key}_dataset_id_to_contiguous_id"].items()
    }
    with PathManager.open(json_file) as file:
        listed = json.load(file)["annotations"]
    assert listed, f"{json_file} lists no image"
    images = [
        {
            "image_id": int(entry["image_id"]),
            "file_name": os.path.join(image_dir, f"{os.path.splitext(entry['file_name'])[0]}.jpg"),
            "pan_seg_file_name": os.path.join(gt_dir, entry["file_name"]),
            "segments_info": [segment | kinds[segment["category_id"]] for segment in entry["segments_info"]],
        }
        for entry in listed
    ]
    for key in ("file_name", "pan_seg_file_name"):  # of the first image: enough to notice a wrong folder
        assert PathManager.isfile(images[0][key]), f"{images[0][key]}, the first one of {json_file}, does not exist"
    return images


def register_coco_panoptic(
    name: str,
    metadata: dict,
    image_root: str,
    panoptic_root: str,
    panoptic_json: str,
    instances_json: str | None = None,
) -> None:
    """Register a panoptic data set; ``instances_json``, if given, serves to evaluate boxes and masks."""
    load = functools.partial(load_coco_panoptic_json, panoptic_json, image_root, panoptic_root, metadata)
    DatasetCatalog.register(name, load)
    paths = {"panoptic_json": panoptic_json, "panoptic_root": panoptic_root, "json_file": instances_json}
    _describe(name, {"label_divisor": 1000, "image_root": image_root, **paths, **metadata})


def register_coco_panoptic_separated(
    name: str,
    metadata: dict,
    image_root: str,
    panoptic_root: str,
    panoptic_json: str,
    sem_seg_root: str,
    instances_json: str,
) -> None:
    """Register ``{name}_separated``, instances and semantic labels, and ``{name}_stuffonly``, the labels alone.

    Arguments are those of ``register_coco_panoptic``, and ``sem_seg_root``, the folder of the label images.
    """
    both, stuff = f"{name}_separated", f"{name}_stuffonly"
    labels = functools.partial(load_sem_seg, sem_seg_root, image_root)

    def load() -> list[dict]:
        file_of = {pair["file_name"]: pair["sem_seg_file_name"] for pair in labels()}
        images = load_coco_json(instances_json, image_root, both)
        return [image | {"sem_seg_file_name": file_of[image["file_name"]]} for image in images]

    DatasetCatalog.register(stuff, labels)
    DatasetCatalog.register(both, load)
    shared = {"image_root": image_root, "sem_seg_root": sem_seg_root, **metadata}
    _describe(stuff, {"evaluator_type": "sem_seg", **shared})
    _describe(
        both, {"panoptic_json": panoptic_json, "panoptic_root": panoptic_root, "json_file": instances_json, **shared}
    )


def _describe(name: str, facts: dict) -> None:
    MetadataCatalog.get(name).set(**{"evaluator_type": "coco_panoptic_seg", "ignore_label": 255, **facts})
