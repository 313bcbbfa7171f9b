"""Whose checkpoint a job goes on from: one that torchrun starts again continues; another one never takes over.

``test_elastic_torchrun.py`` has the same with torchrun, killed processes and several machines.
"""

import argparse
import json

import pytest

from PADing.engine import main as main_module
from PADing.engine.restart import RECORD, Record, Restart, read_record, started_before
from tests.engine.tiny import TinyTrainer, config


class Place:
    """A process of torchrun ``agent``, without torchrun."""

    def __init__(self, monkeypatch, folder):
        self.patch, self.folder = monkeypatch, folder

    def start(self, agent, *opts, others=()):
        name = agent
        self.patch.setattr("PADing.engine.restart.agent", lambda: name)
        restart = Restart(config(self.folder, *opts))
        for other in others:
            restart._agents[other] = restart._digest
        return restart


@pytest.fixture
def place(monkeypatch, tmp_path):
    return Place(monkeypatch, tmp_path)


def test_the_same_torchrun_goes_on_and_another_one_does_not(place, tmp_path):
    """A job must continue by itself, but never take over somebody else's training."""
    first = place.start("host 1")
    assert not first.known
    first.write(owns=True)
    assert started_before(str(tmp_path))
    again = place.start("host 1")
    assert again.known and again.owns and again.processes == 1
    assert not place.start("host 2").known and not started_before(str(tmp_path))
    assert not place.start("").known


def test_a_job_goes_on_when_the_torchrun_that_started_it_is_gone(place):
    """One that has joined later knows the training by the others that it has met."""
    place.start("a", others=["b"]).write(owns=True)
    again = place.start("b", others=["c"])
    assert again.known
    again.write(owns=True)
    assert place.start("c").known and place.start("a").known


def test_progress_is_the_jobs_own_only_when_the_old_training_is_removed(place):
    """Killed between the start with --overwrite and the removal, the job would go on from the old checkpoints."""
    place.start("a").write(owns=False)
    again = place.start("a")
    assert again.known and not again.owns


def test_training_without_torchrun_ends_the_right_of_the_one_before(place, tmp_path):
    place.start("a").write(owns=True)
    place.start("").write(owns=True)
    assert not (tmp_path / RECORD).exists() and not place.start("a").known


def test_config_that_has_changed_under_a_running_job_is_refused(place):
    """Somebody prepares the next experiment in the file of the running one; a restart would change that silently."""
    place.start("a").write(owns=True)
    assert place.start("a").problems() == []
    (problem,) = place.start("a", "SOLVER.BASE_LR", 0.5).problems()
    assert "SOLVER.BASE_LR was 0.01 and is 0.5" in problem and "--resume" in problem
    assert place.start("b", "SOLVER.BASE_LR", 0.5).problems() == []  # another job may


@pytest.mark.parametrize("content", ["", "{", "[]", '{"agents": 3}', '{"agents": {}, "more": 1}', "[" * 100_000])
def test_damaged_record_means_another_job(place, tmp_path, content):
    (tmp_path / RECORD).write_text(content)
    assert read_record(tmp_path / RECORD) == Record()
    assert not place.start("a").known


def _main(folder, monkeypatch, *flags):
    """``train_or_evaluate`` with the tiny trainer, as torchrun 'a' starts it."""
    monkeypatch.setattr("PADing.engine.restart.agent", lambda: "a")
    monkeypatch.setattr("PADing.engine.trainer.Trainer", TinyTrainer)
    cfg = config(folder / "out", "TEST.EVAL_PERIOD", 0)
    (folder / "config.yaml").write_text(cfg.dump())
    args = argparse.Namespace(config_file=str(folder / "config.yaml"), opts=[], resume=False, overwrite=False,
                              eval_only=False, no_progress_bar=True)  # fmt: skip
    vars(args).update({flag: True for flag in flags})
    return main_module.train_or_evaluate(args)


@pytest.mark.parametrize("flag", [None, "overwrite"])
def test_started_again_the_training_goes_on_by_itself(tmp_path, monkeypatch, flag):
    """--overwrite counts for the first start alone; later it would remove the progress."""
    flags = [flag] if flag else []
    monkeypatch.setattr(TinyTrainer, "stop_before", 5)
    if flag:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "model_0000099.pth").write_bytes(b"of an older training")
    with pytest.raises(KeyboardInterrupt):
        _main(tmp_path, monkeypatch, *flags)
    out = tmp_path / "out"
    assert {path.name for path in out.glob("model_*")} == {"model_0000002.pth"}
    monkeypatch.setattr(TinyTrainer, "stop_before", None)
    _main(tmp_path, monkeypatch, *flags)
    assert (out / "model_final.pth").is_file() and (out / "model_0000002.pth").is_file()
    environment = json.loads((out / "environment.json").read_text())
    assert [run["run"] for run in environment["runs"]] == ["training", "resumed training"]
