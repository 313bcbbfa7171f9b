"""Data sets in COCO's panoptic format: one PNG of segment ids for each image, and a JSON file about the segments."""

import functools
import json
import os

from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from .coco import load_coco_json, load_sem_seg

__all__ = ["load_coco_panoptic_json", "register_coco_panoptic", "register_coco_panoptic_separated"]


def load_coco_panoptic_json(json_file: str, image_dir: str, gt_dir: str, meta: dict) -> list[dict]:
    """The images of a panoptic annotation file, in its order, without opening one.

    Args:
        image_dir: folder of the images, which are called like their PNGs, but ``.jpg``.
        gt_dir: folder of the PNGs.
        meta: ``thing_dataset_id_to_contiguous_id`` and ``stuff_dataset_id_to_contiguous_id``.

    Returns:
        ``file_name image_id pan_seg_file_name segments_info`` of each image; segments have contiguous category ids, and
        ``isthing``.

    Raises:
        AssertionError: no image in the file, or the first image or its PNG is not there.
        KeyError: a segment of an unknown category.
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
    """Register a panoptic data set; ``instances_json``, if given, serves to evaluate boxes and masks.

    Args:
        metadata: what else is known about it, with the two maps that ``load_coco_panoptic_json`` needs.
        image_root, panoptic_root, panoptic_json: folders of the images and PNGs, and the annotation file.
    """
    DatasetCatalog.register(
        name, functools.partial(load_coco_panoptic_json, panoptic_json, image_root, panoptic_root, metadata)
    )
    paths = {"panoptic_json": panoptic_json, "panoptic_root": panoptic_root, "json_file": instances_json}
    MetadataCatalog.get(name).set(label_divisor=1000, **_shared("coco_panoptic_seg", image_root, paths, metadata))


def register_coco_panoptic_separated(
    name: str,
    metadata: dict,
    image_root: str,
    panoptic_root: str,
    panoptic_json: str,
    sem_seg_root: str,
    instances_json: str,
) -> None:
    """Register the two parts of a panoptic data set, for models that learn things and stuff separately.

    ``{name}_separated`` has instances and a semantic label image for each image, ``{name}_stuffonly`` the label image
    alone. Arguments are those of ``register_coco_panoptic``, and ``sem_seg_root``, the folder of the label images.
    """
    both, stuff = f"{name}_separated", f"{name}_stuffonly"
    labels = functools.partial(load_sem_seg, sem_seg_root, image_root)
    DatasetCatalog.register(stuff, labels)
    DatasetCatalog.register(both, lambda: merge_to_panoptic(load_coco_json(instances_json, image_root, both), labels()))
    paths = {"sem_seg_root": sem_seg_root}
    MetadataCatalog.get(stuff).set(**_shared("sem_seg", image_root, paths, metadata))
    paths |= {"panoptic_json": panoptic_json, "panoptic_root": panoptic_root, "json_file": instances_json}
    MetadataCatalog.get(both).set(**_shared("coco_panoptic_seg", image_root, paths, metadata))


def _shared(evaluator_type: str, image_root: str, paths: dict, metadata: dict) -> dict:
    return {"evaluator_type": evaluator_type, "ignore_label": 255, "image_root": image_root, **paths, **metadata}


def merge_to_panoptic(detection_dicts: list[dict], sem_seg_dicts: list[dict]) -> list[dict]:
    """Add to each image with instances its ``sem_seg_file_name``; KeyError if there is none."""
    label_file = {labels["file_name"]: labels["sem_seg_file_name"] for labels in sem_seg_dicts}
    return [image | {"sem_seg_file_name": label_file[image["file_name"]]} for image in detection_dicts]
