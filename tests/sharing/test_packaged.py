"""The trained model of the package; wrong here means that a newcomer's first command fails, or shows a bad model."""

import json
import shutil

import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

from PADing.class_space import ClassSpace
from PADing.config import load_config
from PADing.data.mini_files import make_mini_coco
from PADing.data.registration import register_split
from PADing.data.splits import split_from_dict
from PADing.engine.trainer import Trainer
from PADing.errors import UserError
from PADing.files import REPOSITORY
from PADing.inference import from_pretrained, load_model
from PADing.safetensors_files import read_safetensors
from PADing.sharing.places import PACKAGED, is_packaged

FOLDER = PACKAGED["mini"]
REPORT = json.loads((FOLDER / "report.json").read_text())


@pytest.fixture(scope="module")
def validation_set(tmp_path_factory):
    """The first validation images of the report's data set, drawn again, under a name of their own."""
    folder, seed = tmp_path_factory.mktemp("packaged") / "mini", REPORT["seed"]
    make_mini_coco(folder, train=1, val=REPORT["checked"]["images"], size=REPORT["images"]["size"], seed=seed)
    content = yaml.safe_load((REPOSITORY / "datasets" / "splits" / "mini.yaml").read_text())
    content["data_sets"] = [entry for entry in content["data_sets"] if entry["name"] == "mini_val_panoptic"]
    content["data_sets"][0]["name"] = name = "packaged_val_panoptic"
    register_split(split_from_dict(content, str(folder / "split.yaml")), root=str(folder.parent))
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_its_metrics_are_those_of_its_report(validation_set, tmp_path):
    cfg = load_config("mini", ["DATASETS.TEST", f"('{validation_set}',)", "OUTPUT_DIR", str(tmp_path)])
    results = Trainer.test(cfg, load_model(cfg))
    for task, metrics in REPORT["checked"]["metrics"].items():
        for key, value in metrics.items():
            # Another processor may decide a segment of a rare class differently.
            assert results[task][key] == pytest.approx(value, abs=3), (task, key)


def test_it_finds_unseen_classes_and_rounding_has_changed_next_to_nothing():
    for task, metrics in REPORT["metrics"].items():
        assert min(metrics.values()) > 10, task
        assert metrics == pytest.approx(REPORT["metrics before rounding"][task], abs=0.5)
    shared = json.loads((FOLDER / "results.json").read_text())["mini_val_panoptic"]
    assert all(shared[task][key] == value for task, row in REPORT["metrics"].items() for key, value in row.items())
    card = (FOLDER / "README.md").read_text()
    assert f"{REPORT['metrics']['panoptic_seg']['PQ_hm']:.2f}" in card and REPORT["commit"] in card


def test_it_is_small_whole_and_without_paths_of_a_machine():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 5e6
    weights = read_safetensors(FOLDER / "model.safetensors")["model"]
    predictor = from_pretrained("mini")
    state = predictor.model.state_dict()
    assert {name: value.shape for name, value in weights.items()} == {name: v.shape for name, v in state.items()}
    assert all(torch.equal(value.to(state[name].dtype), state[name]) for name, value in weights.items())
    space = ClassSpace.of(predictor.metadata)
    assert len(space) == 22 and len(space.unseen) == 6
    for path in FOLDER.iterdir():
        if path.suffix in (".yaml", ".json", ".md"):
            assert not [word for word in ("/tmp", "/home", "/root", "/work") if word in path.read_text()], path


def test_its_name_works_from_any_folder_and_hides_no_model_of_the_user(tmp_path, monkeypatch, shared):
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / "mini.json").write_text("a data set")
    monkeypatch.chdir(tmp_path)
    for name in ("mini", "models/mini"):
        assert load_config(name).MODEL.WEIGHTS == str(FOLDER / "model.safetensors")
    assert is_packaged("mini") and is_packaged("models/mini") and is_packaged(str(FOLDER))
    with pytest.raises(UserError, match="no revision"):
        from_pretrained("mini", revision="v1")
    shutil.rmtree("mini")
    shutil.copytree(shared, "mini")
    assert not is_packaged("mini") and load_config("mini").MODEL.META_ARCHITECTURE == "D2Zero"
    assert not is_packaged("configs/mini/panoptic-PADing.yaml") and not is_packaged("hf://OWNER/mini")
