"""The time left that people see is read from the logs; if those change their form, it would silently vanish."""

import logging

import pytest
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from torch import nn

from PADing.engine.progress import read_progress

TRAINING = (
    "[11/21 02:43:10 d2.utils.events]:  eta: 1 day, 0:03:25  iter: 119  gan_loss_total_loss: 5.31  "
    "id_loss_total_loss: 0.25  time: 0.3333  lr: 0.001"
)


def test_training_lines():
    progress = read_progress(TRAINING)
    assert (progress.phase, progress.done, progress.seconds_left) == ("training", 119, 86400 + 205)
    assert progress.losses == {"gan_loss_total_loss": "5.31", "id_loss_total_loss": "0.25"}
    assert read_progress("[d2.engine.train_loop]: Starting training from iteration 0") is None


class _Nothing(DatasetEvaluator):
    pass


def test_evaluation_lines(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    logging.getLogger("detectron2").propagate = True
    # Without the limit of a line in some seconds, which another test's evaluation may just have used up.
    log = logging.getLogger("detectron2").log
    monkeypatch.setattr("detectron2.evaluation.evaluator.log_every_n_seconds", lambda level, text, n: log(level, text))
    inference_on_dataset(nn.Identity(), [[{}]] * 12, _Nothing())
    found = [p for p in map(read_progress, caplog.messages) if p]
    if not found:
        pytest.fail("no line of the evaluation was understood:\n" + "\n".join(caplog.messages))
    assert (found[0].phase, found[0].total) == ("evaluation", 12) and found[0].done <= 12
