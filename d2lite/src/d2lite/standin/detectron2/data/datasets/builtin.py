"""Registers COCO's own data sets. Importing this reads no data."""

import os

from .builtin_meta import _get_builtin_metadata
from .coco import register_coco_instances
from .coco_panoptic import register_coco_panoptic, register_coco_panoptic_separated


def register_all_coco(root: str) -> None:
    """Instances of 2014 and 2017, panoptic of 2017 in its three forms, from the folder ``root``/coco."""
    coco = os.path.join(root, "coco")
    annotations = os.path.join(coco, "annotations")
    for part in ("train2014", "val2014", "train2017", "val2017"):
        split, year = part[:-4], part[-4:]
        name = f"coco_{year}_{split}"
        images = os.path.join(coco, part)
        instances = os.path.join(annotations, f"instances_{part}.json")
        register_coco_instances(name, _get_builtin_metadata("coco"), instances, images)
        if year == "2014":
            continue
        panoptic = {
            "image_root": images,
            "panoptic_root": os.path.join(coco, f"panoptic_{part}"),
            "panoptic_json": os.path.join(annotations, f"panoptic_{part}.json"),
            "instances_json": instances,
        }
        name += "_panoptic"
        register_coco_panoptic(name, _get_builtin_metadata("coco_panoptic_standard"), **panoptic)
        panoptic["sem_seg_root"] = os.path.join(coco, f"panoptic_stuff_{part}")
        register_coco_panoptic_separated(name, _get_builtin_metadata("coco_panoptic_separated"), **panoptic)


register_all_coco(os.path.expanduser(os.environ.get("DETECTRON2_DATASETS", "datasets")))
