"""Checkpoints whose content is not what a training wrote: taken as it is, or refused in one message."""

import copy
import random

import pytest
import torch

from PADing.engine.checkpointer import TAG, read_weights
from PADing.engine.rng import rng_state
from PADing.engine.shares import Shares
from PADing.engine.stream import StreamLoader, TrainingStream
from PADing.engine.training_state import RankStates, guarded_state
from PADing.errors import UserError
from tests.engine.tiny import TinyTrainer, config
from tests.mutated_weights import spoiled
from tests.mutations import survives


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What the checkpoint of a short training holds."""
    folder = tmp_path_factory.mktemp("whole")
    TinyTrainer(config(folder, "TEST.EVAL_PERIOD", 0)).train()
    return torch.load(folder / "model_0000005.pth", weights_only=True)


def folder_with(content, folder):
    folder.mkdir(exist_ok=True)
    torch.save(content, folder / "model_0000005.pth")
    (folder / TAG).write_text("model_0000005.pth")
    return config(folder, "TEST.EVAL_PERIOD", 0)


def resume(cfg):
    trainer = TinyTrainer(cfg)
    trainer.resume_or_load(resume=True)
    return trainer


def test_spoiled_content_is_taken_or_refused(written, tmp_path):
    """Neither loading nor the iterations behind it end in another error."""
    outcomes = []
    for number in range(60):
        cfg = folder_with(spoiled(written, random.Random(number)), tmp_path / str(number))
        outcomes.append(survives(lambda cfg=cfg: resume(cfg).train(), f"resuming spoiled checkpoint {number}"))
        survives(lambda cfg=cfg: read_weights(f"{cfg.OUTPUT_DIR}/model_0000005.pth"), f"spoiled weights {number}")
    assert {True, False} == set(outcomes)


@pytest.mark.parametrize(
    "part", ["ranks", "ranks.ranks", "optimizer.param_groups", "scheduler.last_epoch", "trainer.iteration", "iteration"]
)
def test_damaged_state_of_a_training_is_named(written, tmp_path, part):
    content = copy.deepcopy(written)
    *way, key = part.split(".")
    node = content
    for step in way:
        node = node[step]
    node[key] = "text"
    with pytest.raises(UserError, match="cannot be resumed"):
        resume(folder_with(content, tmp_path / "run"))


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [("step", 3.0, True), ("step", 3, True), ("step", "3", False), ("exp_avg", 0.5, False), ("exp_avg", None, False),
     ("exp_avg", torch.zeros(3, 3), False), ("exp_avg", torch.zeros(2, 2), True)],
)  # fmt: skip
def test_state_of_an_optimizer_has_the_shapes_of_its_parameters(name, value, fits):
    """Older versions of PyTorch store the step as a number; a moment that is one would end the training later."""
    layer = torch.nn.Linear(2, 2, bias=False)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = optimizer.state[layer.weight]
    del state[name]
    if fits:
        with guarded_state({"optimizer": optimizer}, "x.pth"):
            state[name] = value
        return
    with pytest.raises(UserError, match=rf"x.pth cannot be resumed: .*optimizer.state.*{name}"):
        with guarded_state({"optimizer": optimizer}, "x.pth"):
            state[name] = value


def test_generators_of_a_new_training_are_as_they_were_seeded():
    """Otherwise SEED would not give the same training with and without shares."""
    loader = StreamLoader(lambda *_: (), TrainingStream([{}], dict, seed=5))
    torch.manual_seed(11)
    seeded, states = rng_state(), RankStates(loader)
    for start, shares in ((0, Shares(3, 0, 1)), (4, Shares(3, 0, 1)), (0, Shares(3, 1, 2)), (4, Shares(3, 0, 1))):
        states.restore(start, 6, shares)
        found = [state["torch"] for state in shares.generators]
        assert len(found) == len(shares.own) and torch.equal(torch.get_rng_state(), seeded["torch"])
        as_seeded = [torch.equal(state, seeded["torch"]) for state in found]
        assert as_seeded == [start == 0 and share == 0 for share in shares.own]
    assert len({state.numpy().tobytes() for state in found}) == 3


@pytest.mark.parametrize("number", [1, 2])
def test_a_checkpoint_holds_the_generators_as_they_are_now(number):
    """Those of the start would give a resumed training the random numbers of its beginning."""
    loader = StreamLoader(lambda *_: (), TrainingStream([{}], dict, seed=5))
    states, shares = RankStates(loader), Shares(number, 0, 1)
    states.restore(0, number, shares)
    torch.rand(3)
    if number > 1:
        now = torch.get_rng_state()
        shares.generators = [{**state, "torch": now + share} for share, state in enumerate(shares.generators)]
    states.collect(1)
    found = [state["rng"]["torch"] for state in states.state_dict()["ranks"]]
    assert [torch.equal(state, torch.get_rng_state() + share) for share, state in enumerate(found)] == [True] * number
