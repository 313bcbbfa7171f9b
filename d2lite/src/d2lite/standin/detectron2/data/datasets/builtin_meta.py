"""Categories of COCO panoptic segmentation, and the metadata that follows from them."""

import json
from pathlib import Path
from typing import Any

__all__ = ["COCO_CATEGORIES"]

COCO_CATEGORIES: list[dict] = json.loads(
    Path(__file__).with_name("coco_categories.json").read_text(encoding="utf-8")
)
"""``id``, ``name``, ``isthing`` (1 or 0) and RGB ``color`` per category: things, then stuff, each by ascending id."""


def _things() -> list[dict]:
    return [c for c in COCO_CATEGORIES if c["isthing"]]


def _stuff() -> list[dict]:
    return [c for c in COCO_CATEGORIES if not c["isthing"]]


def _contiguous(categories: list[dict], first: int = 0) -> dict[int, int]:
    return {c["id"]: first + i for i, c in enumerate(categories)}


def _instances_meta() -> dict[str, Any]:
    things = _things()
    return {
        "thing_dataset_id_to_contiguous_id": _contiguous(things),
        "thing_classes": [c["name"] for c in things],
        "thing_colors": [c["color"] for c in things],
    }


def _panoptic_standard_meta() -> dict[str, Any]:
    """One list of classes for things and stuff, so a contiguous id means the same class in either list."""
    names = [c["name"] for c in COCO_CATEGORIES]
    colors = [c["color"] for c in COCO_CATEGORIES]
    things, stuff = _things(), _stuff()
    return {
        "thing_classes": names,
        "thing_colors": colors,
        "stuff_classes": list(names),
        "stuff_colors": list(colors),
        "thing_dataset_id_to_contiguous_id": _contiguous(things),
        "stuff_dataset_id_to_contiguous_id": _contiguous(stuff, first=len(things)),
    }


def _panoptic_separated_meta() -> dict[str, Any]:
    """The classes of Panoptic FPN: its semantic branch sees all things as one stuff class, number 0."""
    stuff = _stuff()
    return {
        "stuff_dataset_id_to_contiguous_id": {0: 0, **_contiguous(stuff, first=1)},
        "stuff_classes": ["things"] + [c["name"] for c in stuff],
        "stuff_colors": [[82, 18, 128]] + [c["color"] for c in stuff],
        **_instances_meta(),
    }


_BUILTIN = {
    "coco": _instances_meta,
    "coco_panoptic_standard": _panoptic_standard_meta,
    "coco_panoptic_separated": _panoptic_separated_meta,
}


def _get_builtin_metadata(dataset_name: str) -> dict[str, Any]:
    if dataset_name not in _BUILTIN:
        raise KeyError(f"No built-in metadata for dataset {dataset_name}; there is {', '.join(_BUILTIN)}.")
    return _BUILTIN[dataset_name]()
