"""A drawn mini data set of a few small images, registered under names of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

from PADing.data.mini_files import make_mini_coco
from PADing.data.registration import register_split
from PADing.data.splits import Split, split_from_dict

MINI = Path(__file__).resolve().parents[1] / "datasets" / "splits" / "mini.yaml"


@contextmanager
def drawn_mini(folder: Path, prefix: str, train: int, val: int) -> Iterator[Split]:
    """Draw images of 64 x 64 into ``folder``; inside the block, the names of the data sets have the ``prefix``.

    ``folder`` must be called ``mini``. Its ``split.yaml`` is the split file.
    """
    make_mini_coco(folder, train=train, val=val, size=64, seed=3)
    content = yaml.safe_load(MINI.read_text())
    content["name"] = f"{prefix}mini"
    for entry in content["data_sets"]:
        entry["name"] = f"{prefix}{entry['name']}"
    (folder / "split.yaml").write_text(yaml.safe_dump(content))
    split = split_from_dict(content, str(folder / "split.yaml"))
    register_split(split, root=str(folder.parent))
    try:
        yield split
    finally:
        for entry in content["data_sets"]:
            DatasetCatalog.remove(entry["name"])
            MetadataCatalog.remove(entry["name"])
