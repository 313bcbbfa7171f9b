"""SOLVER.CHECKPOINT_MINUTES: at most so much work is lost, however slow the iterations are."""

import pytest
import torch
from detectron2.utils import comm

from PADing.engine import timed_checkpoint
from tests.engine.test_distributed import in_two_processes
from tests.engine.test_trainer import run, weights
from tests.engine.tiny import TinyTrainer, config


def names(folder):
    return sorted(path.name for path in folder.glob("model_0*.pth"))


@pytest.mark.parametrize(
    ("minutes", "period", "iterations"),
    [(0, 1000, []), (2.5, 1000, [2, 5]), (2.5, 2, [1, 3, 5, 7]), (1, 1000, list(range(7))), (100, 1000, [])],
)
def test_when_checkpoints_are_written(tmp_path, monkeypatch, minutes, period, iterations):
    """Those by iterations count, too: no second one soon after."""
    clock = _Iterations(monkeypatch)
    opts = ["SOLVER.CHECKPOINT_MINUTES", minutes, "SOLVER.CHECKPOINT_PERIOD", period]
    clock.run(config(tmp_path, *opts))
    assert names(tmp_path) == [f"model_{i:07d}.pth" for i in iterations]


class _Iterations:
    """``run`` trains with iterations of a minute each, by a clock of its own."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(timed_checkpoint.time, "monotonic", lambda: self.now)
        step = TinyTrainer.run_step

        def slow(trainer):
            step(trainer)
            self.now += 60

        monkeypatch.setattr(TinyTrainer, "run_step", slow)

    def run(self, cfg, **how):
        return run(cfg, **how)


def test_a_resumed_training_is_the_same_and_old_checkpoints_go(tmp_path, monkeypatch):
    clock = _Iterations(monkeypatch)
    opts = ["SOLVER.CHECKPOINT_MINUTES", 1, "SOLVER.CHECKPOINT_PERIOD", 1000, "SOLVER.CHECKPOINT_KEEP", 2]
    clock.run(config(tmp_path / "run", *opts), stop_before=6)
    assert names(tmp_path / "run") == ["model_0000004.pth", "model_0000005.pth"]
    resumed = clock.run(config(tmp_path / "run", *opts), resume=True)
    assert resumed.start_iter == 6
    assert (weights(resumed) == weights(clock.run(config(tmp_path / "whole")))).all()


def test_a_resumed_training_starts_the_clock_anew(tmp_path, monkeypatch):
    clock = _Iterations(monkeypatch)
    opts = ["SOLVER.CHECKPOINT_MINUTES", 3, "SOLVER.CHECKPOINT_PERIOD", 1000]
    clock.run(config(tmp_path, *opts), stop_before=5)
    assert names(tmp_path) == ["model_0000002.pth"]
    clock.now += 86_400
    clock.run(config(tmp_path, *opts), resume=True)
    assert names(tmp_path) == ["model_0000002.pth", "model_0000005.pth"]


def check_agreement(folder):
    """The clock of the second process is a day ahead, and does not count."""
    with pytest.MonkeyPatch.context() as patch:
        clock = _Iterations(patch)
        clock.now += 86_400 * comm.get_rank()
        if comm.get_rank():
            patch.setattr(timed_checkpoint.time, "monotonic", lambda: clock.now * 1000)
        opts = ["SOLVER.CHECKPOINT_MINUTES", 2.5, "SOLVER.CHECKPOINT_PERIOD", 1000, "TEST.EVAL_PERIOD", 0]
        trainer = clock.run(config(folder, *opts))
        comm.synchronize()
        assert trainer.ranks.collected == 7
    if comm.is_main_process():
        content = torch.load(f"{folder}/model_0000002.pth", weights_only=True)
        assert len(content["ranks"]["ranks"]) == 2


def test_processes_agree_on_the_iteration(tmp_path):
    in_two_processes(check_agreement, tmp_path)
    assert names(tmp_path) == ["model_0000002.pth", "model_0000005.pth"]
