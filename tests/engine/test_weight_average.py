"""The moving average of weights: its numbers, its place in evaluation and checkpoints, and exact resuming."""

import json

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from PADing.config import load_config
from PADing.engine.checkpointer import TrainingCheckpointer
from PADing.engine.start_check import BUILDING, start_problems
from PADing.engine.weight_average import WeightAverage, choice_of_weights
from PADing.errors import UserError
from tests.engine.tiny import TinyTrainer, config

EMA = ["SOLVER.EMA.ENABLED", True, "SOLVER.EMA.DECAY", 0.9]


def test_worked_example():
    """Decay 0.5, weights 0, 4, 8: 0 -> 2 -> 5. With warmup the decays are 2/11 and 3/12: 3.27 -> 6.82."""
    for warmup, wanted in ((False, [2, 5]), (True, [4 * 9 / 11, 4 * 9 / 11 + (8 - 4 * 9 / 11) * 0.75])):
        model = nn.Linear(1, 1)
        nn.init.zeros_(model.weight)
        average = WeightAverage(model, 0.5, warmup)
        average.begin()
        for value, want in zip((4.0, 8.0), wanted, strict=True):
            nn.init.constant_(model.weight, value)
            average.update()
            assert average.weights["weight"].item() == pytest.approx(want, rel=1e-6)


def test_frozen_weights_and_counters_stay_exact():
    """A drift of the frozen segmenter would change PADing's results for no reason."""
    model = nn.Sequential(nn.Linear(7, 7), nn.BatchNorm1d(7))
    average = WeightAverage(model, 0.999, False)
    average.begin()
    for _ in range(50):
        average.update()
    model[1](torch.rand(4, 7))
    average.update()
    assert torch.equal(average.weights["0.weight"], model[0].weight)
    assert average.weights["1.num_batches_tracked"] == 1


def test_model_has_its_own_weights_again_after_an_evaluation():
    model = nn.Linear(3, 3)
    average = WeightAverage(model, 0.5, False)
    average.begin()
    own = model.weight.detach().clone()
    average.weights["weight"] += 1
    with pytest.raises(KeyboardInterrupt), average.applied():
        assert torch.equal(model.weight, own + 1)
        raise KeyboardInterrupt
    assert torch.equal(model.weight, own)


def train(folder, *opts, resume=False, stop=None):
    torch.manual_seed(3)
    trainer = TinyTrainer(config(folder, *opts))
    trainer.resume_or_load(resume=resume) if resume else None
    trainer.stop_before = stop
    if stop:
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
    else:
        trainer.train()
    return trainer


def final(folder):
    return torch.load(folder / "model_final.pth", weights_only=True)


def test_training_is_the_same_with_and_without_an_average(tmp_path):
    train(tmp_path / "with", *EMA)
    train(tmp_path / "without")
    held, plain = final(tmp_path / "with"), final(tmp_path / "without")
    assert all(torch.equal(plain["model"][key], value) for key, value in held["model"].items())
    assert held["ema"]["updates"] == 8
    assert "ema" not in plain
    assert not torch.equal(held["ema"]["weights"]["head.weight"], held["model"]["head.weight"])


def test_resumed_average_is_bit_equal(tmp_path):
    train(tmp_path / "whole", *EMA)
    train(tmp_path / "parts", *EMA, stop=4)
    train(tmp_path / "parts", *EMA, resume=True)
    whole, parts = final(tmp_path / "whole")["ema"], final(tmp_path / "parts")["ema"]
    assert whole["updates"] == parts["updates"]
    assert all(torch.equal(parts["weights"][key], value) for key, value in whole["weights"].items())


def test_evaluation_uses_the_average_and_says_so(tmp_path, monkeypatch, caplog):
    seen = []
    monkeypatch.setattr("PADing.engine.trainer.evaluate_readable", lambda model, *_: seen.append(weight(model)) or {})
    weight = lambda model: model.head.weight.detach().clone()  # noqa: E731
    with caplog.at_level("INFO"):
        train(tmp_path, *EMA, "TEST.EVAL_PERIOD", 0)
    held = final(tmp_path)
    assert torch.equal(seen[-1], held["ema"]["weights"]["head.weight"])
    assert "Evaluating the averaged weights" in caplog.text
    assert json.loads((tmp_path / "results.json").read_text())["weights"] == "ema"


@pytest.mark.parametrize(("choice", "entry"), [("model", "model"), ("ema", "ema"), ("auto", "ema")])
def test_either_weights_can_be_loaded(choice, entry, tmp_path):
    train(tmp_path, *EMA)
    cfg = config(tmp_path, *EMA, "MODEL.WEIGHTS_FROM", choice)
    model = build_model(cfg)
    checkpointer = TrainingCheckpointer(model)
    checkpointer.weights_from = choice_of_weights(cfg, training=False)
    checkpointer.load(str(tmp_path / "model_final.pth"))
    held = final(tmp_path)
    wanted = held["model"] if entry == "model" else held["ema"]["weights"]
    assert torch.equal(model.head.weight, wanted["head.weight"])
    assert checkpointer.averaged == (entry == "ema")


def test_choice_of_a_training_and_without_an_average():
    assert choice_of_weights(load_config("", EMA), training=True) == "model"
    assert choice_of_weights(load_config(""), training=False) == "model"
    assert choice_of_weights(load_config("", ["MODEL.WEIGHTS_FROM", "ema"]), training=True) == "ema"


def test_file_without_an_average(tmp_path):
    train(tmp_path)
    model = build_model(config(tmp_path))
    checkpointer = TrainingCheckpointer(model)
    checkpointer.weights_from = "ema"
    with pytest.raises(UserError, match="hold no averaged weights. Set MODEL.WEIGHTS_FROM model"):
        checkpointer.load(str(tmp_path / "model_final.pth"))
    checkpointer.weights_from = "auto"
    checkpointer.load(str(tmp_path / "model_final.pth"))
    assert not checkpointer.averaged


@pytest.mark.parametrize("hostile", [{}, {"weights": 3}, {"updates": -1, "weights": {}}, {"updates": 1, "weights": {}}])
def test_hostile_average_in_a_checkpoint_is_refused(hostile, tmp_path):
    train(tmp_path, *EMA, stop=4)
    path = tmp_path / (tmp_path / "last_checkpoint").read_text()
    content = torch.load(path, weights_only=True)
    torch.save({**content, "ema": hostile}, path)
    trainer = TinyTrainer(config(tmp_path, *EMA))
    with pytest.raises(UserError, match="cannot be resumed"):
        trainer.resume_or_load(resume=True)


def test_average_of_other_shapes_or_types_is_refused():
    model = nn.Linear(2, 2)
    average = WeightAverage(model, 0.5, False)
    good = model.state_dict()
    for wrong in (torch.zeros(3, 2), good["weight"].double(), torch.zeros(3, 2).double(), 1.0, None):
        with pytest.raises(ValueError, match="lacks weight as the model has it"):
            average.load_state_dict({"updates": 1, "weights": {**good, "weight": wrong}})
    for updates in (-1, 1.0, True, None):
        with pytest.raises(ValueError, match="no number of updates"):
            average.load_state_dict({"updates": updates, "weights": good})
    average.load_state_dict({"updates": 0, "weights": good})
    assert average.weights["weight"] is not good["weight"] and average.updates == 0


def test_average_that_begins_in_a_resumed_training_starts_from_its_weights(tmp_path):
    train(tmp_path, stop=4)
    trainer = TinyTrainer(config(tmp_path, *EMA))
    trainer.resume_or_load(resume=True)
    trainer.before_train()
    assert torch.equal(trainer.average.weights["head.weight"], trainer.model.head.weight)


@pytest.mark.parametrize("decay", [1.0, -0.1, 2.0])
def test_wrong_decay_is_refused(decay, tmp_path):
    problems = start_problems(config(tmp_path, "SOLVER.EMA.DECAY", decay), BUILDING | {"train"})
    assert any("SOLVER.EMA.DECAY" in problem for problem in problems)
