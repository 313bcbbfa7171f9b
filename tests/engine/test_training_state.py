"""Checkpoints whose content is not what a training wrote: taken as it is, or refused in one message."""

import copy
import random

import pytest
import torch

from PADing.engine.checkpointer import TAG, read_weights
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
