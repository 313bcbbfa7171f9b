"""Loaders of data sets in COCO's formats, and COCO's own data sets."""

from . import builtin  # registers COCO
from .coco import convert_to_coco_json, load_coco_json, load_sem_seg, register_coco_instances
from .coco_panoptic import register_coco_panoptic, register_coco_panoptic_separated
