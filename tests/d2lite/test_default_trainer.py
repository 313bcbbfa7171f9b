"""If these fail, a training leaves other files, resumes elsewhere, or goes on with broken numbers."""

import argparse
import itertools
import sys

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.engine import (
    AMPTrainer,
    CallbackHook,
    DefaultPredictor,
    DefaultTrainer,
    SimpleTrainer,
    default_setup,
)
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils.logger import setup_logger
from torch import nn

from tests.d2lite.standin import standin_only
from tests.d2lite.tiny_training import DATA, ErrorEvaluator, TinyRegression, Trainer, make_cfg, metrics


def test_a_training_leaves_the_files_that_people_look_for(tmp_path):
    cfg = make_cfg(tmp_path)
    args = argparse.Namespace(config_file="", eval_only=False)
    default_setup(cfg, args)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()

    names = {path.name for path in tmp_path.iterdir()}
    events = {name for name in names if name.startswith("events.out.tfevents")}
    checkpoints = {f"model_{i:07d}.pth" for i in (9, 19, 29, 39)} | {"model_final.pth"}
    assert names - events == {"config.yaml", "log.txt", "metrics.json", "last_checkpoint"} | checkpoints
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"

    saved = get_cfg()
    saved.merge_from_file(str(tmp_path / "config.yaml"))
    assert saved.SOLVER.MAX_ITER == 40

    checkpoint = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert set(checkpoint) == {"model", "trainer", "iteration"} and checkpoint["iteration"] == 39
    assert checkpoint["trainer"]["iteration"] == 39
    assert checkpoint["trainer"]["hooks"]["LRScheduler"]["last_epoch"] == 40
    assert checkpoint["trainer"]["_trainer"]["optimizer"]["state"]

    rows = metrics(tmp_path)
    # Written every 20 iterations and when the last evaluation has added its metrics.
    assert [row["iteration"] for row in rows if "total_loss" in row] == [19, 39]
    # The evaluations after iteration 24 and at the end, which counts as iteration 40.
    assert [row["iteration"] for row in rows if "fit/error" in row] == [24, 40]
    last = [row for row in rows if "total_loss" in row][-1]
    assert {"data_time", "eta_seconds", "iteration", "loss_abs", "loss_square", "lr", "time", "total_loss"} <= set(last)
    assert last["lr"] == pytest.approx(0.01)  # after the step at 30
    assert rows[-1]["fit/error"] < 0.2

    log = (tmp_path / "log.txt").read_text()
    for text in (
        "Rank of current process: 0. World size: 1",
        "Running with full config",
        "Starting training from iteration 0",
        "iter: 19  total_loss:",
        "Saving checkpoint to",
        "Overall training speed: 38 iterations in",
        "Total training time:",
    ):
        assert text in log, text


def test_a_killed_training_resumes_where_it_was(tmp_path):
    class Killed(Trainer):
        def run_step(self):
            if self.iter == 25:
                raise KeyboardInterrupt
            super().run_step()

    with pytest.raises(KeyboardInterrupt):
        Killed(make_cfg(tmp_path / "a")).train()
    resumed = Trainer(make_cfg(tmp_path / "a"))
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 20  # the last checkpoint was of iteration 19

    whole = Trainer(make_cfg(tmp_path / "b"))
    rates = {}
    for name, trainer in (("resumed", resumed), ("whole", whole)):
        seen = rates[name] = {}
        trainer.register_hooks(
            [CallbackHook(before_step=lambda t, seen=seen: seen.update({t.iter: t.optimizer.param_groups[0]["lr"]}))]
        )
        trainer.train()
    assert min(rates["resumed"]) == 20 and min(rates["whole"]) == 0
    assert rates["resumed"] == {i: lr for i, lr in rates["whole"].items() if i >= 20}


def test_resuming_gives_the_same_weights_as_not_stopping(tmp_path):
    whole = Trainer(make_cfg(tmp_path))
    start = {name: value.clone() for name, value in whole.model.state_dict().items()}
    whole.train()
    (tmp_path / "last_checkpoint").write_text("model_0000019.pth")
    resumed = Trainer(make_cfg(tmp_path))
    resumed.resume_or_load(resume=True)
    resumed.train()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value) and not torch.equal(start[name], value)


def test_weights_alone_do_not_move_the_iteration(tmp_path):
    Trainer(make_cfg(tmp_path / "a")).train()
    trainer = Trainer(make_cfg(tmp_path / "b", "MODEL.WEIGHTS", str(tmp_path / "a" / "model_final.pth")))
    trainer.resume_or_load(resume=False)
    assert trainer.start_iter == 0
    saved = torch.load(tmp_path / "a" / "model_final.pth", weights_only=True)["model"]
    assert torch.equal(trainer.model.layer.weight, saved["layer.weight"])
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.001)  # start of the warmup


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path):
    class Diverges(Trainer):
        @classmethod
        def build_train_loader(cls, cfg):
            return itertools.chain([DATA] * 3, itertools.repeat([{"x": float("nan"), "y": 0.0}]))

        @classmethod
        def test(cls, cfg, model, evaluators=None):
            raise AssertionError("an evaluation after a failed training")

    trainer = Diverges(make_cfg(tmp_path))
    with pytest.raises(FloatingPointError, match=r"iteration=3!\n.*loss_square"):
        trainer.train()
    assert torch.isfinite(trainer.model.layer.weight).all()  # stopped before the optimizer's step
    assert not (tmp_path / "model_final.pth").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without CUDA")
@pytest.mark.filterwarnings("ignore")
def test_mixed_precision_needs_cuda(tmp_path):
    trainer = Trainer(make_cfg(tmp_path, "SOLVER.AMP.ENABLED", True))
    assert isinstance(trainer._trainer, AMPTrainer)
    with pytest.raises(AssertionError, match="CUDA is required for AMP training"):
        trainer.train()


@pytest.mark.filterwarnings("ignore")
def test_mixed_precision_scales_losses_and_keeps_the_scale_in_checkpoints(monkeypatch):
    """Not unscaled, steps would be 1,024 times too long; without the state, resumed runs begin with overflows."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # autocast to CUDA does nothing on CPU tensors

    def trained(make):
        model = TinyRegression(None)
        nn.init.constant_(model.layer.weight, 1.0), nn.init.zeros_(model.layer.bias)
        trainer = make(model, itertools.repeat(DATA), torch.optim.SGD(model.parameters(), lr=0.1))
        trainer.train(0, 3)
        return trainer

    def mixed(*args):
        return AMPTrainer(*args, grad_scaler=torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2))

    trainer = trained(mixed)
    for mine, plain in zip(trainer.model.parameters(), trained(SimpleTrainer).model.parameters(), strict=True):
        assert torch.allclose(mine, plain, rtol=1e-6)
    assert trainer.state_dict()["grad_scaler"]["scale"] == 2048.0  # two iterations without overflow
    again = mixed(trainer.model, [], trainer.optimizer)
    again.load_state_dict(trainer.state_dict())
    assert again.grad_scaler.get_scale() == 2048.0 and again.iter == 3


def test_hooks_come_in_the_known_order(tmp_path):
    trainer = Trainer(make_cfg(tmp_path))
    order = [type(hook).__name__ for hook in trainer._hooks]
    assert order == ["IterationTimer", "LRScheduler", "PeriodicCheckpointer", "EvalHook", "PeriodicWriter"]
    assert [type(w).__name__ for w in trainer._hooks[-1]._writers][:2] == ["CommonMetricPrinter", "JSONWriter"]
    assert trainer.model is trainer._trainer.model and isinstance(trainer._trainer, SimpleTrainer)
    trainer.optimizer = "another"
    assert trainer._trainer.optimizer == "another"


@standin_only  # the genuine package requires TensorBoard
def test_training_does_not_need_a_working_tensorboard(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    setup_logger()
    Trainer(make_cfg(tmp_path, "SOLVER.MAX_ITER", 10)).train()
    assert (tmp_path / "model_final.pth").is_file() and len(metrics(tmp_path)) == 2
    assert "TensorBoard cannot be used" in capsys.readouterr().out


def test_testing_several_sets_and_without_an_evaluator(tmp_path, caplog):
    model = TinyRegression(None)
    two = Trainer.test(make_cfg(tmp_path, "DATASETS.TEST", ("a", "b")), model)
    assert list(two) == ["a", "b"] and set(two["a"]) == {"fit"}
    given = Trainer.test(make_cfg(tmp_path), model, ErrorEvaluator())
    assert set(given) == {"fit"}

    class NoEvaluator(Trainer):
        @classmethod
        def build_evaluator(cls, cfg, dataset_name):
            raise NotImplementedError

    assert NoEvaluator.test(make_cfg(tmp_path), model) == {}


def test_configs_scale_with_the_number_of_processes():
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.REFERENCE_WORLD_SIZE", 8, "SOLVER.MAX_ITER", 100, "SOLVER.STEPS", (60, 80)])
    cfg.freeze()
    scaled = DefaultTrainer.auto_scale_workers(cfg, 4)
    solver = scaled.SOLVER
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.MAX_ITER, solver.STEPS) == (8, 0.0005, 200, (120, 160))
    assert (solver.WARMUP_ITERS, solver.CHECKPOINT_PERIOD, solver.REFERENCE_WORLD_SIZE) == (2000, 10000, 4)
    assert scaled.is_frozen() and cfg.SOLVER.MAX_ITER == 100
    assert DefaultTrainer.auto_scale_workers(cfg, 8) is cfg
    cfg.defrost()
    cfg.SOLVER.IMS_PER_BATCH = 12
    with pytest.raises(AssertionError):
        DefaultTrainer.auto_scale_workers(cfg, 4)


@META_ARCH_REGISTRY.register()
class EchoInput(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, batch):
        assert not self.training and not torch.is_grad_enabled()
        return batch


def test_the_predictor_resizes_and_orders_channels_as_the_config_says(tmp_path):
    image = np.zeros((20, 40, 3), dtype=np.uint8)
    image[..., 0] = 200  # blue
    for order, channel in (("BGR", 0), ("RGB", 2)):
        cfg = make_cfg(
            tmp_path, "MODEL.META_ARCHITECTURE", "EchoInput", "INPUT.FORMAT", order,
            "INPUT.MIN_SIZE_TEST", 10, "INPUT.MAX_SIZE_TEST", 16,
        )  # fmt: skip
        output = DefaultPredictor(cfg)(image)
        # The longer side is limited to 16; height and width are those of the given image.
        assert output["image"].shape == (3, 8, 16) and output["image"].dtype == torch.float32
        assert (output["height"], output["width"]) == (20, 40)
        assert output["image"][channel].mean() == 200 and output["image"].sum() == 200 * 8 * 16
