"""Data sets in COCO's panoptic format: a json file and one PNG of segment ids per image."""

import functools
import json
import os
from typing import Any

from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from .coco import load_coco_json, load_sem_seg

__all__ = ["load_coco_panoptic_json", "register_coco_panoptic", "register_coco_panoptic_separated"]


def load_coco_panoptic_json(json_file: str, image_dir: str, gt_dir: str, meta: dict[str, Any]) -> list[dict]:
    """Read a panoptic json file. No picture is read.

    Args:
        json_file: path of the file.
        image_dir: folder of the images; an image has the name of its PNG, with ``.jpg``.
        gt_dir: folder of the PNGs, whose segment ids are R + 256 G + 65536 B.
        meta: must have ``thing_dataset_id_to_contiguous_id`` and ``stuff_dataset_id_to_contiguous_id``.

    Returns:
        Per annotated image, in the file's order: ``file_name``, ``image_id``, ``pan_seg_file_name`` and
        ``segments_info``, whose entries have a contiguous ``category_id`` and a boolean ``isthing``.

    Raises:
        AssertionError: the file has no image, or the first image or PNG is missing.
        KeyError: a segment of a category that ``meta`` does not have.
    """
    things = meta["thing_dataset_id_to_contiguous_id"]
    stuff = meta["stuff_dataset_id_to_contiguous_id"]

    def contiguous(segment: dict, image_id: int) -> dict:
        category = segment["category_id"]
        isthing = category in things
        if not isthing and category not in stuff:
            raise KeyError(f"{json_file}: a segment of image {image_id} has category {category}, not in the metadata.")
        return {**segment, "category_id": (things if isthing else stuff)[category], "isthing": isthing}

    with PathManager.open(json_file) as f:
        annotations = json.load(f)["annotations"]
    dicts = []
    for annotation in annotations:
        png = annotation["file_name"]
        image_id = int(annotation["image_id"])
        dicts.append(
            {
                "file_name": os.path.join(image_dir, os.path.splitext(png)[0] + ".jpg"),
                "image_id": image_id,
                "pan_seg_file_name": os.path.join(gt_dir, png),
                "segments_info": [contiguous(s, image_id) for s in annotation["segments_info"]],
            }
        )
    assert dicts, f"No images found in {json_file}!"
    for key in ("file_name", "pan_seg_file_name"):
        # The first stands for all: a wrong folder shows at once, and a missing single file when it is read.
        assert PathManager.isfile(dicts[0][key]), f"{dicts[0][key]} does not exist, but {json_file} lists it."
    return dicts


def register_coco_panoptic(
    name: str,
    metadata: dict[str, Any],
    image_root: str,
    panoptic_root: str,
    panoptic_json: str,
    instances_json: str | None = None,
) -> None:
    """Register a data set whose dicts are those of :func:`load_coco_panoptic_json`.

    Args:
        name: for example ``"coco_2017_train_panoptic"``.
        metadata: fields for its metadata, with the two maps of ids.
        image_root: folder of the images.
        panoptic_root: folder of the PNGs.
        panoptic_json: the annotation file.
        instances_json: instances of the same images, for the evaluation of boxes and masks; may be absent.
    """
    loader = functools.partial(load_coco_panoptic_json, panoptic_json, image_root, panoptic_root, metadata)
    DatasetCatalog.register(name, loader)
    MetadataCatalog.get(name).set(
        panoptic_root=panoptic_root,
        image_root=image_root,
        panoptic_json=panoptic_json,
        json_file=instances_json,
        evaluator_type="coco_panoptic_seg",
        ignore_label=255,
        label_divisor=1000,
        **metadata,
    )


def register_coco_panoptic_separated(
    name: str,
    metadata: dict[str, Any],
    image_root: str,
    panoptic_root: str,
    panoptic_json: str,
    sem_seg_root: str,
    instances_json: str,
) -> None:
    """Register ``{name}_separated`` (instances, and a semantic PNG per image) and ``{name}_stuffonly`` (only the PNG).

    Args:
        name: for example ``"coco_2017_train_panoptic"``.
        metadata: fields for both data sets' metadata.
        image_root: folder of the images.
        panoptic_root: folder of the panoptic PNGs, for evaluation.
        panoptic_json: panoptic annotation file, for evaluation.
        sem_seg_root: folder of the semantic PNGs.
        instances_json: instance annotations.
    """
    separated, stuffonly = f"{name}_separated", f"{name}_stuffonly"
    load_stuff = functools.partial(load_sem_seg, sem_seg_root, image_root)

    DatasetCatalog.register(
        separated, lambda: merge_to_panoptic(load_coco_json(instances_json, image_root, separated), load_stuff())
    )
    MetadataCatalog.get(separated).set(
        panoptic_root=panoptic_root,
        image_root=image_root,
        panoptic_json=panoptic_json,
        sem_seg_root=sem_seg_root,
        json_file=instances_json,
        evaluator_type="coco_panoptic_seg",
        ignore_label=255,
        **metadata,
    )

    DatasetCatalog.register(stuffonly, load_stuff)
    MetadataCatalog.get(stuffonly).set(
        sem_seg_root=sem_seg_root, image_root=image_root, evaluator_type="sem_seg", ignore_label=255, **metadata
    )


def merge_to_panoptic(detection_dicts: list[dict], sem_seg_dicts: list[dict]) -> list[dict]:
    """The detection dicts, each with the ``sem_seg_file_name`` of the dict for the same image file.

    Raises:
        AssertionError: there is no semantic dict.
        KeyError: an image has instances but no semantic label.
    """
    assert sem_seg_dicts, "There is no semantic label to merge."
    labels = {d["file_name"]: d["sem_seg_file_name"] for d in sem_seg_dicts}
    merged = []
    for detection in detection_dicts:
        file_name = detection["file_name"]
        if file_name not in labels:
            raise KeyError(f"Image {file_name} has instance annotations but no semantic label file.")
        merged.append({**detection, "sem_seg_file_name": labels[file_name]})
    return merged
