"""The val2017 protocol on a few images, from COCO's files to annotation that training reads, and to a report."""

import json

import numpy as np
import pytest

from PADing.commands.val2017 import main
from PADing.data.embeddings import save_class_embeddings
from PADing.data.loaders import load_data_set
from PADing.data.splits import load_split
from PADing.files import REPOSITORY
from tests.end_to_end.command_line import SMALL
from tests.tiny_coco import draw_source, make_tiny_coco

SPLITS = REPOSITORY / "datasets" / "splits" / "val2017"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("val2017")
    root = make_tiny_coco(folder / "data", draw_source(folder / "drawn", 20), 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(root))
        assert main(["prepare", "--subset", "--workers", "1"]) == 0
        yield root


def test_each_list_is_loaded_without_the_images_of_the_other(prepared):
    lists = json.loads((prepared / "coco" / "val2017_zero_shot" / "lists.json").read_text())
    assert len(lists["train"]) == 16 and len(lists["val"]) == 4
    for name in ("48_17", "119_14"):
        split = load_split(SPLITS / f"val2017_{name}.yaml")
        for data_set in split.data_sets:
            records = load_data_set(split, data_set, str(prepared))
            part = {record["image_id"] for record in records}
            assert part and part <= set(lists[data_set.role]), data_set.name
            if data_set.role == "train":
                space = split.class_space(data_set)
                kept = [entry for r in records for entry in r.get("annotations") or r.get("segments_info")]
                assert not {entry["category_id"] for entry in kept} & space.unseen, "no unseen class in training"


def test_preparing_again_gives_the_same_files(prepared):
    folder = prepared / "coco" / "val2017_zero_shot"
    before = {path.name: path.read_bytes() for path in folder.glob("*.json")}
    assert main(["prepare", "--subset", "--workers", "1"]) == 0
    assert {path.name: path.read_bytes() for path in folder.glob("*.json")} == before


@pytest.mark.slow
@pytest.mark.parametrize("task", ["instance", "panoptic"])
def test_all_trainings_run_and_the_report_has_their_metrics(prepared, task, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = list(SMALL)
    if task == "panoptic":
        names = load_split(SPLITS / "val2017_119_14.yaml").names_to_embed()
        vectors = np.random.default_rng(0).normal(size=(len(names), 8)).astype(np.float32)
        save_class_embeddings(tmp_path / "vectors.npz", names, vectors, source="random")
        options += ["MODEL.CLASS_EMBEDDINGS", str(tmp_path / "vectors.npz")]
    flags = ["--task", task, "--num-gpus", "0", "--backbone", "", "--output", str(tmp_path / "out")]
    assert main(["run", *flags, *options]) == 0
    shown = capfd.readouterr().out
    wanted = {"instance": ("instance_PADing", "d2zero"), "panoptic": ("panoptic_PADing",)}[task]
    for name in wanted:
        assert f"| {name} | val2017_" in shown
    assert main(["run", *flags, *options]) == 0, "a second call finds everything finished"
    assert "is finished" in capfd.readouterr().out
