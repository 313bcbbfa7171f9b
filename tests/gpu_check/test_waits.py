"""Where a model would wait for a GPU: each place costs the time in which the GPU has nothing to do."""

import pytest
import torch
from detectron2.utils.events import EventStorage

from PADing.config import load_config
from PADing.engine.loss_values import LossValues
from PADing.engine.trainer import Trainer
from PADing.gpu_check.waits import Waits


def _places(function) -> dict[str, int]:
    with Waits() as waits:
        function()
    return {place.partition(":")[2]: count for place, count in waits.places.items()}


def test_what_waits_is_counted_and_what_does_not_is_not():
    x, labels = torch.randn(6), torch.arange(6)  # made outside: of the GPU

    def asks():
        if x.sum() > 0:
            pass
        float(x[0]), x.tolist(), x.cpu(), x[x > 0], labels.unique(), labels.repeat_interleave(labels)
        x.clone()[x > 0] = x[:2].new_ones(int((x > 0).sum()))

    found = _places(asks)
    assert found == {
        "asks (__bool__)": 1, "asks (__float__)": 1, "asks (tolist)": 1, "asks (cpu)": 1, "asks (unique)": 1,
        "asks (__getitem__ with a mask)": 1, "asks (repeat_interleave)": 1, "asks (__int__)": 1,
        "asks (__setitem__ with a mask)": 1,
    }  # fmt: skip

    def asks_nothing():
        ours = torch.tensor([2, 0, 1])
        assert ours.sum() == 3 and ours.tolist() == [2, 0, 1] and (ours > 0)[0]
        back = x.abs().cpu() if False else torch.zeros(3)
        back[back == 0] = 1.0
        x.clone()[x > 0] = 1.0
        x[labels], x.masked_fill(x > 0, 0), torch.where(x > 0, x, 0), [row for row in x]
        x.repeat_interleave(2)

    assert _places(asks_nothing) == {}


def _model(model_options, architecture):
    (_, file), opts = model_options(architecture)
    cfg = load_config(file, opts)
    model = Trainer.build_model(cfg)
    return cfg, model


@pytest.mark.parametrize("architecture", ["MaskFormer", "D2Zero"])
def test_a_training_step_waits_for_the_matching_alone(model_options, architecture):
    """The assignment is found on the CPU, so its costs must come there. All else can be asked of the GPU ahead."""
    cfg, model = _model(model_options, architecture)
    batch = next(iter(Trainer.build_train_loader(cfg)))
    model.train()

    def step():
        with EventStorage(0):
            sum(model(batch).values()).backward()

    _places(step)  # tables are made once
    assert _places(step) == {"match (cpu)": 1}


def test_losses_are_asked_for_once():
    losses = {"loss_a": torch.tensor(1.0), "loss_b": torch.tensor(2.0)}

    def log():
        with EventStorage(0):
            LossValues(losses, 0.0).log()

    assert _places(log) == {"log (tolist)": 1}


@pytest.mark.parametrize("architecture", ["MaskFormer", "PADing", "D2Zero"])
def test_inference_waits_only_for_its_results(model_options, architecture):
    """The number of segments and instances, and the areas of segments, which decide what the results are."""
    cfg, model = _model(model_options, architecture)
    batch = next(iter(Trainer.build_test_loader(cfg, cfg.DATASETS.TEST[0])))
    model.eval()
    with torch.no_grad():
        model(batch)
        found = _places(lambda: model(batch))
    of_segments = {"panoptic_map (nonzero)", "panoptic_map (bincount)", "panoptic_map (tolist)"}
    of_instances = {"instance_inference (nonzero)", "make_instances (unique)"}
    assert found.keys() <= of_segments | of_instances and set(found.values()) == {1}
