"""What a runner must know of an exported model; the file carries it as JSON."""

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from PADing.class_space import ClassSpace
from PADing.export.program import INPUT, LEAST_SIDE, OUTPUTS, Program

KEY = "pading"  # of the entry in ONNX's metadata_props and among a .pt2 file's extra files
EXTRA = f"{KEY}.json"
FORMAT = 1


def describe(cfg: CfgNode, program: Program, opset: int | None, sampling: str, greatest_side: int) -> dict[str, Any]:
    """The description of an exported program; ``opset`` is None for a program of torch.export."""
    model, data_set = program.model, cfg.DATASETS.TEST[0]
    metadata = MetadataCatalog.get(data_set)
    rule = model.instance_rule()
    return {
        "format": FORMAT,
        "architecture": type(model).__name__,
        "data_set": data_set,
        "file": {"opset": opset, "sampling": sampling, "torch": torch.__version__.split("+")[0]},
        "input": {
            "name": INPUT,
            "shape": ["batch", 3, "height", "width"],
            "channels": cfg.INPUT.FORMAT,
            "scale": [0, 255],
            "sides": [LEAST_SIDE, greatest_side],
            "resize": {"shorter_side": _side(cfg.INPUT.MIN_SIZE_TEST), "longer_side": cfg.INPUT.MAX_SIZE_TEST},
            # Done by the program itself.
            "pixel_mean": model.pixel_mean.flatten().tolist(),
            "pixel_std": model.pixel_std.flatten().tolist(),
            "padded_to_multiple_of": max(model.size_divisibility, 1),
        },
        "outputs": {output: list(OUTPUTS[output]) for output in program.outputs},
        "classes": _classes(metadata),  # in the order of labels
        "results": {
            "semantic": model.semantic_on,
            "instance": model.instance_on,
            "panoptic": model.panoptic_on,
            "object_mask_threshold": model.object_mask_threshold,
            "overlap_threshold": model.overlap_threshold,
            "things": sorted(model.things) if model.panoptic_on else None,
            "boxes_from_masks": model.boxes_from_masks,
            "instance_rule": {
                "scale": rule.scale, "columns": rule.columns, "kept": rule.kept,
                "groups": [{"number": number, "labels": labels} for number, labels in rule.groups],
            },
        },
    }  # fmt: skip


def _side(value: Any) -> int:
    return int(value[0] if isinstance(value, (list, tuple)) else value)


def _classes(metadata: Any) -> list[dict[str, Any]]:
    """Name, id in the annotation, thing or stuff, seen or unseen, and color of each label."""
    space = ClassSpace.of(metadata)
    colors = metadata.get("stuff_colors") or ()
    things = metadata.get("thing_colors") or ()
    if not colors or len(colors) != len(space.names):
        colors = things if len(things) == len(space.names) else ()
    return [
        {
            "label": label,
            "name": name,
            "id": space.dataset_ids[label],
            "thing": label in space.things,
            "unseen": label in space.unseen,
            "color": list(colors[place]) if colors else None,
        }
        for place, (label, name) in enumerate(space.names.items())
    ]
