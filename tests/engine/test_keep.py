"""SOLVER.CHECKPOINT_KEEP: old checkpoints go, and never one that somebody needs."""

from pathlib import Path

import pytest

from PADing.engine.checkpointer import TrainingCheckpointer
from tests.engine.test_trainer import run, weights
from tests.engine.tiny import config


def names(folder):
    return sorted(path.name for path in folder.glob("*.pth"))


def test_the_last_ones_stay_and_a_resumed_run_goes_on_removing(tmp_path):
    opts = ["SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.CHECKPOINT_KEEP", 2]
    best = ["TEST.BEST.METRIC", "tiny/images"]
    run(config(tmp_path, *opts, *best), stop_before=5)
    assert names(tmp_path) == ["model_0000003.pth", "model_0000004.pth", "model_best.pth"]
    resumed = run(config(tmp_path, *opts, *best), resume=True)
    assert names(tmp_path) == ["model_0000006.pth", "model_0000007.pth", "model_best.pth", "model_final.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert (weights(resumed) == weights(run(config(tmp_path / "whole")))).all()


def test_by_default_all_stay(tmp_path):
    run(config(tmp_path, "SOLVER.CHECKPOINT_PERIOD", 2))
    assert len(names(tmp_path)) == 5


def test_checkpoints_of_other_names_and_of_later_iterations_stay(tmp_path):
    """After a step back (the user edits last_checkpoint), later files are not counted as the newest."""
    for name in ("model_0000001.pth", "model_0000099.pth", "model_7.pth", "model_mine.pth"):
        (tmp_path / name).write_bytes(b"")
    opts = ["SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.CHECKPOINT_KEEP", 1, "SOLVER.MAX_ITER", 4]
    run(config(tmp_path, *opts))
    left = ["model_0000003.pth", "model_0000099.pth", "model_7.pth", "model_final.pth", "model_mine.pth"]
    assert names(tmp_path) == left


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_crash_while_removing_leaves_a_folder_to_resume_from(tmp_path, monkeypatch, moment):
    opts = ["SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.CHECKPOINT_KEEP", 1]
    unlink = Path.unlink

    def crash(path, missing_ok=False):
        if path.name == "model_0000001.pth":
            if moment == "after":
                unlink(path)
            raise KeyboardInterrupt
        return unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", crash)
    run(config(tmp_path, *opts), stop_before=-1)
    monkeypatch.undo()
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"
    resumed = run(config(tmp_path, *opts), resume=True)
    assert resumed.start_iter == 3 and names(tmp_path) == ["model_0000007.pth", "model_final.pth"]


def test_a_file_that_cannot_be_removed_does_not_stop_the_training(tmp_path, monkeypatch, caplog):
    def refuse(path, missing_ok=False):
        raise PermissionError(13, "Permission denied")

    checkpointer = TrainingCheckpointer(run(config(tmp_path)).model, tmp_path)
    checkpointer.keep, checkpointer.last_iteration = 1, 7
    monkeypatch.setattr(Path, "unlink", refuse)
    checkpointer._remove_old()
    assert "cannot be removed (SOLVER.CHECKPOINT_KEEP): Permission denied" in caplog.text
