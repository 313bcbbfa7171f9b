"""If these fail, the warm start's backbone learns wrong labels, or another thing after a kill."""

import json
import os

import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

import minibench.folds.backbone as backbone
from minibench.folds.crops import SIDE, STORED, cut, varied
from PADing.checkpoint_files import read_checkpoint
from PADing.config import load_config
from PADing.data.images import read_image
from PADing.data.mini_v2.files import make_world
from PADing.data.mini_v2.worlds import world
from PADing.data.registration import register_split
from PADing.data.splits import split_from_dict
from PADing.errors import UserError
from PADing.files import REPOSITORY

CATEGORIES = world("warm-start").categories()
THINGS = [category.isthing for category in CATEGORIES]
NAMES = ["crops_train_panoptic", "crops_val_panoptic"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A few images of the world, with names of their own."""
    root = tmp_path_factory.mktemp("crops")
    make_world("warm-start", root / "mini2" / "warm-start", train=8, val=3)
    path = REPOSITORY / "datasets" / "splits" / "mini2" / "warm-start_all.yaml"
    content = yaml.safe_load(path.read_text())
    for entry in content["data_sets"]:
        entry["name"] = entry["name"].replace("mini2_warm_start_all", "crops")
    register_split(split_from_dict({**content, "name": "crops"}, str(path)), root=str(root))
    yield
    for entry in content["data_sets"]:
        DatasetCatalog.remove(entry["name"])
        MetadataCatalog.remove(entry["name"])


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(backbone, "BATCH", 4)
    monkeypatch.setattr(backbone, "_PERIOD", 2)

    def cfg(iterations: int):
        opts = ["DATASETS.TRAIN", f"('{NAMES[0]}',)", "DATASETS.TEST", f"('{NAMES[1]}',)", "SEED", 3]
        opts += ["MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.WIDTH_PER_GROUP", 4]  # a narrow one
        opts += ["MODEL.RESNETS.STEM_OUT_CHANNELS", 16, "MODEL.RESNETS.RES2_OUT_CHANNELS", 16]
        return load_config(
            REPOSITORY / "configs" / "mini" / "panoptic-pretrain.yaml", [*opts, "SOLVER.MAX_ITER", iterations]
        )

    return cfg


def test_there_is_a_crop_of_every_segment_and_it_shows_it(data):
    records = DatasetCatalog.get(NAMES[0])
    crops = cut(records, "RGB", THINGS)
    labels = [segment["category_id"] for record in records for segment in record["segments_info"]]
    assert crops.labels.tolist() == labels
    assert crops.images.shape == (len(labels), 3, STORED, STORED) and crops.images.dtype == torch.uint8
    # The middle of a crop of ground has the color of that ground in the image, and not of anything else.
    first = 0
    for record in records:
        image = torch.from_numpy(read_image(record["file_name"]).copy()).reshape(-1, 3)
        for number, segment in enumerate(record["segments_info"], start=first):
            if not THINGS[segment["category_id"]]:
                middle = crops.images[number][:, STORED // 2, STORED // 2].int()
                assert (image.int() - middle).abs().sum(1).min() <= 30
        first += len(record["segments_info"])


def test_only_colors_of_things_change_and_nothing_is_lost():
    draws = torch.Generator().manual_seed(0)
    images = torch.zeros(64, 3, STORED, STORED, dtype=torch.uint8)
    images += torch.tensor([10, 100, 250], dtype=torch.uint8)[:, None, None]
    colored = torch.arange(64) % 2 == 0
    result = varied(images, colored, draws)
    assert result.shape == (64, 3, SIDE, SIDE)
    flat = result.mean((2, 3))
    assert torch.allclose(flat[~colored], torch.tensor([10.0, 100, 250]))
    seen = {tuple(sorted(row.round().int().tolist())) for row in flat[colored]}
    assert seen == {(10, 100, 250), (5, 155, 245)}  # as it is, and inverted
    assert len({tuple(row.round().int().tolist()) for row in flat[colored]}) > 6


def test_a_killed_training_goes_on_to_the_same_weights(data, small, tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole.pth", tmp_path / "killed" / "backbone.pth"
    killed.parent.mkdir()
    backbone.train_backbone(small(5), CATEGORIES, whole)
    entries = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [entry["iteration"] for entry in entries] == [1, 3, 4, 5]
    assert entries[-1].keys() >= {"val_accuracy", "val_part_1", "val_part_2"}

    step, done = backbone._Run._step, []

    def stops(self, *args):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(backbone._Run, "_step", stops)
        with pytest.raises(KeyboardInterrupt):
            backbone.train_backbone(small(5), CATEGORIES, killed)
    assert sorted(os.listdir(killed.parent)) == ["backbone_state.pth", "metrics.json"]
    backbone.train_backbone(small(5), CATEGORIES, killed)
    first, second = (read_checkpoint(path, "Backbone")["model"] for path in (whole, killed))
    assert first.keys() == second.keys() and all(key.startswith("backbone.") for key in first)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not (killed.parent / "backbone_state.pth").exists()


def test_a_loss_that_is_not_finite_and_other_classes_have_a_message(data, small, tmp_path, monkeypatch):
    monkeypatch.setattr(backbone.Classifier, "loss", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(UserError, match="loss of the backbone's training is nan in iteration 0"):
        backbone.train_backbone(small(2), CATEGORIES, tmp_path / "backbone.pth")
    with pytest.raises(UserError, match="other classes than its world"):
        backbone.train_backbone(small(2), CATEGORIES[::-1], tmp_path / "backbone.pth")
