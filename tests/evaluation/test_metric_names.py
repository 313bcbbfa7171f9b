"""The metrics and files on docs/evaluation.md are those of a real evaluation, in both directions."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from PIL import Image

from PADing.config import load_config
from PADing.data.registration import register_split
from PADing.data.splits import split_from_dict
from PADing.evaluation import build_evaluator

PAGE = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"
CLASSES = ["cat", "owl", "grass", "sky"]
SECTIONS = {
    "Panoptic quality": ["panoptic_seg"],
    "Semantic segmentation": ["sem_seg"],
    "Instances": ["segm", "bbox"],
    "Unseen classes alone": ["segm_zsi", "bbox_zsi"],
}


def _first_column(heading: str) -> list[str]:
    """The words in backticks in the first column of the table below a heading."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert section, f"docs/evaluation.md has no section {heading}"
    return [name for cell in re.findall(r"^\| ([^|]*) \|", section[1], re.M) for name in re.findall(r"`([^`]+)`", cell)]


def _expanded(names: list[str], classes: list[str]) -> list[str]:
    return [own for name in names for own in ([name.replace("<class>", c) for c in classes] if "<" in name else [name])]


@pytest.fixture
def data_sets(tmp_path, save_ids, save_json):
    """A panoptic set of one image, with a seen and an unseen thing and stuff; an instance set of its unseen thing."""
    categories = [{"id": i, "name": name, "isthing": int(i < 3)} for i, name in enumerate(CLASSES, start=1)]
    ids = np.repeat([1, 2, 3, 4], 2)[None].repeat(8, axis=0)
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "images" / "1.jpg")
    save_ids(tmp_path / "png" / "1.png", ids)
    images = [{"id": 1, "file_name": "1.jpg", "height": 8, "width": 8}]
    shape = {"iscrowd": 0, "area": 16}
    segments = [{"id": i, "category_id": i, "bbox": [2 * i - 2, 0, 2, 8], **shape} for i in range(1, 5)]
    panoptic = [{"image_id": 1, "file_name": "1.png", "segments_info": segments}]
    save_json(tmp_path / "panoptic.json", {"images": images, "annotations": panoptic, "categories": categories})
    owl = {**segments[1], "image_id": 1, "segmentation": [[2, 0, 4, 0, 4, 8, 2, 8]]}
    save_json(tmp_path / "unseen.json", {"images": images, "annotations": [owl], "categories": [categories[1]]})
    common = {"role": "val", "image_root": "./images"}
    panoptic_set = {"kind": "panoptic", "panoptic_root": "./png", "panoptic_json": "./panoptic.json", **common}
    unseen_set = {"kind": "instance", "subset": "unseen", "json": "./unseen.json", **common}
    content = {
        "name": "metric_names",
        "categories": categories,
        "unseen": ["owl", "sky"],
        "data_sets": [{"name": "metric_names_all", **panoptic_set}, {"name": "metric_names_unseen", **unseen_set}],
    }
    register_split(split_from_dict(content, str(tmp_path / "split.yaml")))
    yield
    for name in ("metric_names_all", "metric_names_unseen"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def _outputs(label: int) -> dict:
    instances = Instances((8, 8))
    instances.pred_boxes = Boxes(torch.tensor([[2.0, 0.0, 4.0, 8.0]]))
    instances.scores, instances.pred_classes = torch.tensor([0.9]), torch.tensor([label])
    instances.pred_masks = torch.zeros(1, 8, 8)
    instances.pred_masks[0, :, 2:4] = 1
    segments = [{"id": 1, "category_id": label, "isthing": True}]
    panoptic = (torch.ones(8, 8, dtype=torch.int32), segments)
    return {"panoptic_seg": panoptic, "instances": instances, "sem_seg": torch.rand(4, 8, 8)}


def _evaluate(name: str, label: int, folder: Path) -> dict:
    switches = [f"MODEL.MASK_FORMER.TEST.{task}_ON" for task in ("SEMANTIC", "INSTANCE", "PANOPTIC")]
    options = [word for switch in switches for word in (switch, True)] + ["TEST.WRITE_PNG", True]
    evaluator = build_evaluator(load_config("", options), name, str(folder))
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        evaluator.process([record], [_outputs(label)])
    return evaluator.evaluate()


def test_the_page_names_every_metric_and_no_other(data_sets, tmp_path):
    every = _evaluate("metric_names_all", 1, tmp_path / "all")
    unseen = _evaluate("metric_names_unseen", 0, tmp_path / "unseen")
    assert sorted([*every, *(set(unseen) - set(every))]) == sorted(sum(SECTIONS.values(), []))
    for heading, entries in SECTIONS.items():
        for entry in entries:
            classes = CLASSES[:2] if entry in ("segm", "bbox") else CLASSES
            metrics = every[entry] if entry in every else unseen[entry]
            assert sorted(_expanded(_first_column(heading), classes)) == sorted(metrics), entry


def test_the_page_names_every_file_and_no_other(data_sets, tmp_path):
    _evaluate("metric_names_all", 1, tmp_path / "all")
    written = {path.name + "/" * path.is_dir() for path in (tmp_path / "all").iterdir()}
    assert written == set(_first_column("Files"))
