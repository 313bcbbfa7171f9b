"""Checks that the files of registered data sets exist, before anything slow begins. It opens none of them."""

import os

from detectron2.data import MetadataCatalog

from PADing.data.registration import registered_split
from PADing.data.splits import NEEDED_PATHS

__all__ = ["missing_files"]

# Field of the metadata that holds the path of a split file's key, where the names differ.
_FIELDS = {"json": "json_file"}


def missing_files(name: str) -> str:
    """Which folders and annotation files a registered data set needs and lacks, and what makes them; "" if none."""
    metadata = MetadataCatalog.get(name)
    kind = "panoptic" if metadata.get("panoptic_json") else "instance" if metadata.get("json_file") else "semantic"
    split = registered_split(name)
    data_set = split.data_set(name) if split else None
    absent = []
    for key in NEEDED_PATHS[data_set.kind if data_set else kind]:
        path = metadata.get(_FIELDS.get(key, key))
        if path is None or "://" in path:
            continue  # not of a split file, or fetched when it is read
        folder = key.endswith("_root")
        if not (os.path.isdir(path) if folder else os.path.isfile(path)):
            absent.append(f"{path} (not a {'folder' if folder else 'file'})" if os.path.exists(path) else path)
    if not absent:
        return ""
    maker = f"The data are made by: {data_set.made_by}. " if data_set and data_set.made_by else ""
    return (
        f"Data set {name}: {', '.join(absent)} {'do' if len(absent) > 1 else 'does'} not exist. {maker}Paths are "
        "relative to $DETECTRON2_DATASETS (default `datasets`); datasets/README.md describes the tree, `python -m "
        "PADing.data.verify` checks it."
    )
