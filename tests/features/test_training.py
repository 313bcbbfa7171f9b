"""A second stage trained and evaluated on features is the one that images give."""

import json
import shutil

import pytest
import torch

from PADing.checkpoint_files import read_checkpoint
from PADing.engine.rng import seeded_rng
from PADing.engine.stream import POSITION
from PADing.features.folder import FeatureFolder
from PADing.features.training import FeatureStream
from PADing.features.writing import MATCHING
from PADing.generation.frozen_segmenter import FrozenSegmenter

GENERATOR, CLASSIFIER = "gan_loss_total_loss", "id_loss_total_loss"


def losses(folder) -> list[tuple[float, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return [(line[GENERATOR], line[CLASSIFIER]) for line in lines if CLASSIFIER in line]


def weights(folder) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / "model_final.pth", "Trained")["model"]


@pytest.fixture(scope="module")
def on_images(scene, tmp_path_factory):
    """The folder of a training by ``train_net.py`` whose matching draws its points by position, as features do."""
    from PADing.commands.train import main

    folder, match = tmp_path_factory.mktemp("on_images"), FrozenSegmenter.match

    def by_position(model, batch):
        with seeded_rng(MATCHING, 4, batch[0][POSITION]):
            return match(model, batch)

    flags = ["--config-file", scene.config, "--num-gpus", "0", *scene.options, "OUTPUT_DIR", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FrozenSegmenter, "match", by_position)
        assert main(flags) == 0
    return folder


def test_losses_weights_and_metrics_are_those_of_images_to_the_last_digit(scene, on_images, tmp_path):
    out, folder = tmp_path / "out", scene.folder
    flags = ("--features", folder / "train", "--val-features", folder / "val")
    assert scene.command("train", *flags, opts=("OUTPUT_DIR", out)) == 0
    assert losses(out) == losses(on_images) != []
    own, images = weights(out), weights(on_images)
    assert own.keys() == images.keys()
    assert all(torch.equal(own[name], images[name]) for name in own)
    assert not torch.equal(own["new_fc.weight"], read_checkpoint(scene.weights, "")["model"]["new_fc.weight"])
    results = (out / "results.json").read_text()
    assert results == (on_images / "results.json").read_text() and "PQ" in results


def test_its_checkpoint_is_evaluated_on_images_and_on_features_alike(scene, on_images, tmp_path):
    from PADing.commands.train import main

    final = ("MODEL.WEIGHTS", str(on_images / "model_final.pth"), "OUTPUT_DIR", str(tmp_path))
    assert main(["--eval-only", "--config-file", scene.config, "--num-gpus", "0", *scene.options, *final]) == 0
    wanted = (tmp_path / "results.json").read_text()
    for encoding in ("float32", "float16"):
        features = scene.folder / "val"
        if encoding == "float16":
            features = tmp_path / "half"
            assert scene.command("write", "--part", "val", "--output", features, "--masks", "float16") == 0
        assert scene.command("eval", "--val-features", features, opts=final) == 0
        found = (tmp_path / "results.json").read_text()
        if encoding == "float32":
            assert found == wanted
        else:
            for task, metrics in json.loads(wanted)["feat_mini_val_panoptic"].items():
                own = json.loads(found)["feat_mini_val_panoptic"][task]
                for name, value in metrics.items():
                    assert own[name] == pytest.approx(value, abs=5.0), f"{task} {name}"


def test_half_precision_and_sampled_queries_train_nearly_the_same(scene, on_images, tmp_path):
    folder = tmp_path / "half"
    assert scene.command("write", "--part", "train", "--output", folder, "--passes", "2") == 0
    assert scene.command("train", "--features", folder, opts=("OUTPUT_DIR", tmp_path / "out")) == 0
    for own, images in zip(losses(tmp_path / "out"), losses(on_images), strict=True):
        assert own == pytest.approx(images, rel=0.01)
    assert not (tmp_path / "out" / "results.json").exists(), "nothing is evaluated without --val-features"
    few = tmp_path / "few"
    assert scene.command("write", "--part", "train", "--output", few, "--passes", "2", "--unmatched", "2") == 0
    whole, sampled = FeatureFolder(scene.folder / "train"), FeatureFolder(few)
    for record in range(len(whole)):
        every, some = whole.trained(record), sampled.trained(record)
        assert (every.classes == some.classes).all() and some.features.shape == every.features.shape
        matched = every.classes >= 0
        assert some.features[matched] == pytest.approx(every.features[matched], rel=1e-3, abs=1e-3)
        kinds = {row.tobytes() for row in some.features[~matched]}
        assert len(kinds) == min(2, (~matched).sum())


def test_a_stopped_training_goes_on_and_ends_the_same(scene, tmp_path):
    flags, out = ("--features", scene.folder / "train"), tmp_path / "out"
    opts = ("SOLVER.CHECKPOINT_PERIOD", 2)
    assert scene.command("train", *flags, opts=(*opts, "OUTPUT_DIR", tmp_path / "whole")) == 0
    out.mkdir()
    shutil.copy(tmp_path / "whole" / "model_0000001.pth", out)
    (out / "last_checkpoint").write_text("model_0000001.pth")
    assert scene.command("train", *flags, "--resume", opts=(*opts, "OUTPUT_DIR", out)) == 0
    first, second = weights(tmp_path / "whole"), weights(out)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_each_pass_has_every_record_once_and_other_seeds_another_order(scene):
    folder = FeatureFolder(scene.folder / "train")
    images = folder.header.images
    own = FeatureStream(folder, 4)
    assert [own.record(p) for p in range(2 * images)] == list(range(2 * images)), "as written"
    for seed in (4, 5):
        stream = FeatureStream(folder, seed)
        for number in range(2, 5):
            records = [stream.record(number * images + place) for place in range(images)]
            assert sorted(records) == list(range(number % 2 * images, (number % 2 + 1) * images))
    other = FeatureStream(folder, 5)
    assert [other.record(p) for p in range(images)] != list(range(images))
    assert other.record(3) == FeatureStream(folder, 5).record(3)
