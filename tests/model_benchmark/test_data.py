"""The data benchmark must measure what it says: whole mappers and evaluators, with predictions that match something."""

import argparse
import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from PADing.commands.benchmark import DATA_TASKS, main
from PADing.model_benchmark import data_workload
from tests.small_models import REPOSITORY


@pytest.fixture
def task(tmp_path):
    """``task(name, **options) -> (function, number of images)``."""

    def make(name, coco=None, objects=3):
        prepare, kind = data_workload.TASKS[name]
        sizes = {"height": 96, "width": 128, "objects": objects}
        args = argparse.Namespace(**sizes, coco=coco, output=tmp_path / "result.json", root=REPOSITORY)
        return prepare(args, kind)

    yield make
    if data_workload.NAME in DatasetCatalog.list():
        DatasetCatalog.remove(data_workload.NAME)
        MetadataCatalog.remove(data_workload.NAME)


def test_every_task_has_its_workload():
    assert tuple(data_workload.TASKS) == DATA_TASKS


@pytest.mark.parametrize("name", [name for name in DATA_TASKS if name.startswith("load")])
def test_loading_repeats_the_same_crops(task, name, monkeypatch):
    from PADing.data.dataset_mappers import TrainingMapper

    examples = []
    example = TrainingMapper.example
    monkeypatch.setattr(TrainingMapper, "example", lambda *args: examples.append(example(*args)) or examples[-1])
    run, images = task(name)
    run()
    assert images == len(examples) == data_workload.IMAGES * data_workload.DRAWS
    first, examples[:] = examples[:], []
    run()
    assert all((a["image"] == b["image"]).all() for a, b in zip(first, examples, strict=True))
    assert sum(len(a["instances"]) for a in first) > images  # objects, not only background


@pytest.mark.parametrize(
    ("name", "entry", "metric"),
    [("semantic", "sem_seg", "mIoU"), ("instance", "segm", "AP50"), ("panoptic", "panoptic_seg", "PQ")],
)
def test_predictions_match_part_of_the_annotation(task, name, entry, metric):
    run, images = task(f"evaluate-{name}")
    result = run()[entry][metric]
    assert images == data_workload.IMAGES * data_workload.COPIES and 5 < result < 99
    assert run()[entry][metric] == result


def test_images_in_cocos_layout(task, tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "val2017" / "a.jpg")
    shape = {"bbox": [0, 0, 1, 1], "segmentation": [[1, 1, 30, 1, 30, 30, 1, 30]]}
    content = {
        "images": [{"id": i, "file_name": "a.jpg", "height": 40, "width": 60} for i in (3, 4)],
        "categories": [{"id": 9, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 3, "category_id": 9, "iscrowd": 0, **shape}],
    }  # fmt: skip
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    run, images = task("load-instance", coco=tmp_path)
    run()
    assert images == data_workload.DRAWS  # an image without annotation does not count


def test_mistakes_are_one_message(tmp_path, capsys):
    assert main(["data", "--coco", str(tmp_path)]) != 0
    assert "--coco is for two tasks alone" in capsys.readouterr().err
    assert main(["data", "--task", "load-semantic", "--coco", str(tmp_path)]) != 0
    assert "--coco is for two tasks alone" in capsys.readouterr().err
    assert main(["data", "--task", "load-instance", "--coco", str(tmp_path / "none")]) != 0
    assert "annotations/instances_val2017.json" in capsys.readouterr().err
