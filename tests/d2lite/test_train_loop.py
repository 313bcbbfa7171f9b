"""The loop and its hooks: what is called when, and what is written where."""

import itertools
import logging

import pytest
import torch
from detectron2.engine import (
    BestCheckpointer,
    EvalHook,
    HookBase,
    LRScheduler,
    PeriodicWriter,
    PreciseBN,
    SimpleTrainer,
    TrainerBase,
)
from detectron2.utils.events import EventStorage, EventWriter, get_event_storage
from torch import nn

from tests.d2lite.standin import standin_only


class Recorder(HookBase):
    def __init__(self, calls, name):
        self.calls, self.name = calls, name

    def before_train(self):
        self.calls.append(f"{self.name} before_train")

    def before_step(self):
        self.calls.append(f"{self.name} before_step {self.trainer.iter}")

    def after_step(self):
        self.calls.append(f"{self.name} after_step {self.trainer.iter}")

    def after_train(self):
        self.calls.append(f"{self.name} after_train {self.trainer.iter}")

    def state_dict(self):
        return {"name": self.name}

    def load_state_dict(self, state):
        self.calls.append(f"loaded {state['name']}")


class Loop(TrainerBase):
    def __init__(self, fail_at=None):
        super().__init__()
        self.fail_at = fail_at

    def run_step(self):
        assert get_event_storage().iter == self.iter
        if self.iter == self.fail_at:
            raise RuntimeError("failed")


def test_hooks_are_called_in_order_of_registration():
    calls = []
    trainer = Loop()
    trainer.register_hooks([Recorder(calls, "A"), None, Recorder(calls, "B")])
    trainer.train(3, 5)
    assert calls == [
        "A before_train", "B before_train",
        "A before_step 3", "B before_step 3", "A after_step 3", "B after_step 3",
        "A before_step 4", "B before_step 4", "A after_step 4", "B after_step 4",
        "A after_train 5", "B after_train 5",
    ]  # fmt: skip


def test_after_train_runs_also_after_a_failure():
    calls, evaluations = [], []
    trainer = Loop(fail_at=1)
    trainer.register_hooks([Recorder(calls, "A"), EvalHook(0, lambda: evaluations.append(1))])
    with pytest.raises(RuntimeError):
        trainer.train(0, 4)
    assert calls[-1] == "A after_train 1" and evaluations == []


def test_a_failure_is_logged_and_an_interruption_is_not(caplog):
    class Interrupted(Loop):
        def run_step(self):
            raise KeyboardInterrupt

    with caplog.at_level(logging.ERROR, "detectron2"):
        with pytest.raises(RuntimeError):
            Loop(fail_at=1).train(0, 4)
        with pytest.raises(KeyboardInterrupt):
            Interrupted().train(0, 4)
    (record,) = caplog.records
    assert "training" in record.getMessage().lower() and isinstance(record.exc_info[1], RuntimeError)


@standin_only  # the genuine package leaves the writers behind the failed one open
def test_writers_are_closed_even_if_one_fails():
    """TensorBoard's writer loses its last values if it is not closed."""
    closed = []

    class Writer(EventWriter):
        def __init__(self, fails):
            self.fails = fails

        def write(self):
            if self.fails and get_event_storage().iter == 2:
                raise ValueError("cannot be written")

        def close(self):
            closed.append(self.fails)

    trainer = Loop()
    trainer.register_hooks([PeriodicWriter([Writer(True), Writer(False)])])
    with pytest.raises(ValueError, match="cannot be written"):
        trainer.train(0, 2)
    assert sorted(closed) == [False, True]


def test_state_of_hooks_is_saved_once_per_class_and_given_back():
    calls = []
    trainer = Loop()
    trainer.register_hooks([Recorder(calls, "A"), Recorder(calls, "B")])
    trainer.iter = 6
    assert trainer.state_dict() == {"iteration": 6, "hooks": {"Recorder": {"name": "A"}}}
    other = Loop()
    other.register_hooks([Recorder(calls, "C")])
    other.load_state_dict({"iteration": 6, "hooks": {"Recorder": {"name": "A"}, "Gone": {"x": 1}}})
    assert other.iter == 6 and calls == ["loaded A"]


def test_evaluations_come_every_period_and_after_the_last_iteration():
    seen = []
    trainer = Loop()
    trainer.register_hooks([EvalHook(2, lambda: seen.append(trainer.iter) or {"task": {"AP": 1.0}})])
    trainer.train(0, 6)
    assert seen == [1, 3, 6]
    assert trainer.storage.latest()["task/AP"] == (1.0, 6)
    bad = Loop()
    bad.register_hooks([EvalHook(1, lambda: {"task": {"AP": "many"}})])
    with pytest.raises(ValueError, match="nested dict of float"):
        bad.train(0, 2)


def test_the_reported_rate_is_that_of_the_largest_group():
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(5)]
    groups = [{"params": parameters[:1], "lr": 1.0}, {"params": parameters[1:4], "lr": 2.0}]
    assert LRScheduler.get_best_param_group_id(torch.optim.SGD(groups, lr=1.0)) == 1
    single = [{"params": [p], "lr": lr} for p, lr in zip(parameters, (1.0, 3.0, 2.0, 3.0, 1.5), strict=True)]
    assert LRScheduler.get_best_param_group_id(torch.optim.SGD(single, lr=1.0)) == 1


def test_the_best_checkpoint_is_that_of_the_best_metric():
    saved = []

    class Saver:
        def save(self, name, **kwargs):
            saved.append((name, kwargs["iteration"]))

    metrics = iter([1.0, 3.0, float("nan"), 2.0, 4.0])
    trainer = Loop()
    trainer.register_hooks(
        [EvalHook(1, lambda: {"task": {"AP": next(metrics)}}), BestCheckpointer(1, Saver(), "task/AP", mode="max")]
    )
    trainer.train(0, 5)
    assert saved == [("model_best", 0), ("model_best", 1), ("model_best", 5)]


def test_losses_are_summed_and_written_with_their_names():
    with EventStorage(7) as storage:
        SimpleTrainer.write_metrics({"loss_a": torch.tensor(1.0), "loss_b": torch.tensor(2.0)}, 0.5, 7)
        SimpleTrainer.write_metrics({"one": torch.tensor(4.0)}, 0.5, 7, "gan_loss_")
    latest = storage.latest()
    assert latest["total_loss"] == (3.0, 7) and latest["loss_a"] == (1.0, 7) and latest["data_time"] == (0.5, 7)
    assert latest["gan_loss_total_loss"] == (4.0, 7)
    assert "one" not in latest  # a single loss is its own total


def test_precise_statistics_are_the_mean_over_batches():
    model = nn.BatchNorm1d(1, momentum=0.5)
    batches = [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [9.0]])]
    trainer = Loop()
    trainer.register_hooks([PreciseBN(0, model, itertools.cycle(batches), 2)])
    trainer.train(0, 1)
    assert model.running_mean.item() == pytest.approx((2 + 7) / 2)
    assert model.momentum == 0.5
