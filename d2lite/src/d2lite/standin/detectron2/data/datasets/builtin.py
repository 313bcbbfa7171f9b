"""Registers COCO's own data sets below ``$DETECTRON2_DATASETS`` (default: ``datasets``). Importing it reads no data."""

import os

from detectron2.data.catalog import MetadataCatalog

from .builtin_meta import _get_builtin_metadata
from .coco import register_coco_instances
from .coco_panoptic import register_coco_panoptic, register_coco_panoptic_separated

__all__ = ["register_all_coco"]


def register_all_coco(root: str) -> None:
    """Register ``coco_{2014,2017}_{train,val}`` and ``coco_2017_{train,val}_panoptic`` with its variants.

    Args:
        root: the folder that contains ``coco/``.
    """
    coco = os.path.join(root, "coco")
    for year in (2014, 2017):
        for split in ("train", "val"):
            register_coco_instances(
                f"coco_{year}_{split}",
                _get_builtin_metadata("coco"),
                os.path.join(coco, "annotations", f"instances_{split}{year}.json"),
                os.path.join(coco, f"{split}{year}"),
            )
    for split in ("train", "val"):
        name = f"coco_2017_{split}"
        instances = MetadataCatalog.get(name)
        files = {
            "image_root": instances.image_root,
            "panoptic_root": os.path.join(coco, f"panoptic_{split}2017"),
            "panoptic_json": os.path.join(coco, "annotations", f"panoptic_{split}2017.json"),
            "instances_json": instances.json_file,
        }
        register_coco_panoptic(f"{name}_panoptic", _get_builtin_metadata("coco_panoptic_standard"), **files)
        register_coco_panoptic_separated(
            f"{name}_panoptic",
            _get_builtin_metadata("coco_panoptic_separated"),
            sem_seg_root=os.path.join(coco, f"panoptic_stuff_{split}2017"),
            **files,
        )


register_all_coco(os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets")))
