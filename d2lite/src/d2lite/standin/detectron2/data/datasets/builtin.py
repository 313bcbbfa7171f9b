"""Registers COCO's own data sets, from ``$DETECTRON2_DATASETS``/coco, without reading them."""

import os

from .builtin_meta import _get_builtin_metadata
from .coco import register_coco_instances
from .coco_panoptic import register_coco_panoptic, register_coco_panoptic_separated

_coco = os.path.join(os.path.expanduser(os.environ.get("DETECTRON2_DATASETS", "datasets")), "coco")
for _split, _year in (("train", 2014), ("val", 2014), ("train", 2017), ("val", 2017)):
    _name, _part = f"coco_{_year}_{_split}", f"{_split}{_year}"
    _images = os.path.join(_coco, _part)
    _instances = os.path.join(_coco, "annotations", f"instances_{_part}.json")
    register_coco_instances(_name, _get_builtin_metadata("coco"), _instances, _images)
    if _year == 2017:
        _paths = {
            "image_root": _images,
            "panoptic_root": os.path.join(_coco, f"panoptic_{_part}"),
            "panoptic_json": os.path.join(_coco, "annotations", f"panoptic_{_part}.json"),
            "instances_json": _instances,
        }
        _name += "_panoptic"
        register_coco_panoptic(_name, _get_builtin_metadata("coco_panoptic_standard"), **_paths)
        _paths["sem_seg_root"] = os.path.join(_coco, f"panoptic_stuff_{_part}")
        register_coco_panoptic_separated(_name, _get_builtin_metadata("coco_panoptic_separated"), **_paths)
