"""A disk that is full when results are written is named, whatever wrote them."""

import errno
import os
from types import SimpleNamespace

import pytest

from PADing.errors import UserError
from PADing.evaluation.base import ZeroShotEvaluator


def test_objects_on_a_full_disk(tmp_path, monkeypatch):
    """PyTorch raises a RuntimeError of its own, after hours of evaluation."""

    def refuse(self, content):
        self.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise self.error

    monkeypatch.setattr("PADing.checkpoint_files._Sink.write", refuse)
    evaluator = SimpleNamespace(path=lambda name: str(tmp_path / name))
    with pytest.raises(UserError, match="Disk full: .*predictions.pth cannot be written"):
        ZeroShotEvaluator.save_objects(evaluator, {"a": 1}, "predictions.pth")
    assert not list(tmp_path.iterdir())
