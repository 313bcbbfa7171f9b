"""COCO's categories, and the metadata of its data sets. NOTICE.txt has their source and licence."""

import json
from pathlib import Path

# Things, then stuff, each by ascending id: dicts with id, name, isthing (1 or 0) and color (RGB).
COCO_CATEGORIES: list[dict] = json.loads(Path(__file__).with_name("coco_categories.json").read_text(encoding="utf-8"))
_THINGS = [category for category in COCO_CATEGORIES if category["isthing"]]
_STUFF = [category for category in COCO_CATEGORIES if not category["isthing"]]
# In the "separated" form all things together are one class of the semantic labels: number 0, with this id and color.
_ALL_THINGS = {"id": 0, "name": "things", "color": [82, 18, 128]}


def _classes(kind: str, categories: list[dict]) -> dict:
    return {
        f"{kind}_classes": [category["name"] for category in categories],
        f"{kind}_colors": [category["color"] for category in categories],
    }


def _numbers(kind: str, categories: list[dict], first: int = 0) -> dict:
    return {f"{kind}_dataset_id_to_contiguous_id": {c["id"]: n for n, c in enumerate(categories, first)}}


def _get_builtin_metadata(dataset_name: str) -> dict:
    """New metadata of a family of data sets: "coco", "coco_panoptic_standard" or "coco_panoptic_separated"."""
    instances = {**_classes("thing", _THINGS), **_numbers("thing", _THINGS)}
    match dataset_name:
        case "coco":
            return instances
        case "coco_panoptic_standard":
            # One list of all classes under both names, so that a number means the same class in either.
            classes = {**_classes("thing", COCO_CATEGORIES), **_classes("stuff", COCO_CATEGORIES)}
            return {**classes, **_numbers("thing", _THINGS), **_numbers("stuff", _STUFF, len(_THINGS))}
        case "coco_panoptic_separated":
            stuff = [_ALL_THINGS, *_STUFF]
            return {**instances, **_classes("stuff", stuff), **_numbers("stuff", stuff)}
    raise KeyError(f"no built-in metadata are called {dataset_name!r}")
