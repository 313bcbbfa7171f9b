"""If these fail, a training leaves other files, resumes elsewhere, or goes on with broken numbers."""

import argparse
import itertools
import json
import logging
import os
import sys

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.engine import (
    AMPTrainer,
    BestCheckpointer,
    CallbackHook,
    DefaultPredictor,
    DefaultTrainer,
    EvalHook,
    HookBase,
    LRScheduler,
    PeriodicWriter,
    PreciseBN,
    SimpleTrainer,
    TrainerBase,
    create_ddp_model,
    default_argument_parser,
    default_setup,
    launch,
)
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils.events import EventStorage, EventWriter, get_event_storage
from detectron2.utils.logger import setup_logger
from torch import nn


@META_ARCH_REGISTRY.register()
class TinyRegression(nn.Module):
    """Fits y = 2 x; in training mode returns losses, else predictions."""

    def __init__(self, cfg):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, batch):
        x = torch.tensor([[d["x"]] for d in batch])
        out = self.layer(x)
        if not self.training:
            return [{"y": float(value)} for value in out]
        error = out - torch.tensor([[d["y"]] for d in batch])
        return {"loss_square": (error**2).mean(), "loss_abs": 0.1 * error.abs().mean()}


DATA = [{"x": float(i % 5) / 5, "y": 2.0 * (i % 5) / 5} for i in range(10)]


class ErrorEvaluator(DatasetEvaluator):
    def reset(self):
        self.errors = []

    def process(self, inputs, outputs):
        self.errors += [abs(i["y"] - o["y"]) for i, o in zip(inputs, outputs, strict=True)]

    def evaluate(self):
        return {"fit": {"error": sum(self.errors) / len(self.errors)}}


class Trainer(DefaultTrainer):
    @classmethod
    def build_train_loader(cls, cfg):
        return itertools.cycle([DATA[:5], DATA[5:]])

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        return [[d] for d in DATA]

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return ErrorEvaluator()


def make_cfg(folder, *opts):
    cfg = get_cfg()
    cfg.merge_from_list(
        ["MODEL.DEVICE", "cpu", "MODEL.META_ARCHITECTURE", "TinyRegression", "OUTPUT_DIR", str(folder), "SEED", 1]
    )
    cfg.merge_from_list(["SOLVER.MAX_ITER", 40, "SOLVER.STEPS", (30,), "SOLVER.WARMUP_ITERS", 8, "SOLVER.BASE_LR", 0.1])
    cfg.merge_from_list(["SOLVER.CHECKPOINT_PERIOD", 10, "TEST.EVAL_PERIOD", 25, "DATASETS.TEST", ("tiny_test",)])
    cfg.merge_from_list(list(opts))
    cfg.freeze()
    return cfg


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


# --- the default trainer ----------------------------------------------------------------------------------------------


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
    # Written every 20 iterations and when the last evaluation has added its figures.
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


# --- loop and hooks ---------------------------------------------------------------------------------------------------


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


def test_a_failure_is_logged_with_its_place_and_an_interruption_is_not(caplog):
    class Interrupted(Loop):
        def run_step(self):
            raise KeyboardInterrupt

    with caplog.at_level(logging.ERROR, "detectron2"):
        with pytest.raises(RuntimeError):
            Loop(fail_at=1).train(0, 4)
        with pytest.raises(KeyboardInterrupt):
            Interrupted().train(0, 4)
    (record,) = caplog.records
    assert "iteration 1" in record.getMessage() and isinstance(record.exc_info[1], RuntimeError)


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


def test_the_best_checkpoint_is_that_of_the_best_figure():
    saved = []

    class Saver:
        def save(self, name, **kwargs):
            saved.append((name, kwargs["iteration"]))

    figures = iter([1.0, 3.0, float("nan"), 2.0, 4.0])
    trainer = Loop()
    trainer.register_hooks(
        [EvalHook(1, lambda: {"task": {"AP": next(figures)}}), BestCheckpointer(1, Saver(), "task/AP", mode="max")]
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


# --- command line and processes ---------------------------------------------------------------------------------------


def test_command_line_options():
    args = default_argument_parser().parse_args([])
    assert (args.config_file, args.resume, args.eval_only) == ("", False, False)
    assert (args.num_gpus, args.num_machines, args.machine_rank, args.opts) == (1, 1, 0, [])
    port = 2**15 + 2**14 + hash(os.getuid()) % 2**14
    assert args.dist_url == f"tcp://127.0.0.1:{port}"
    args = default_argument_parser().parse_args("--config-file a.yaml --resume SOLVER.MAX_ITER 5 --num-gpus 2".split())
    # Everything after the first key belongs to the overrides.
    assert args.config_file == "a.yaml" and args.opts == ["SOLVER.MAX_ITER", "5", "--num-gpus", "2"]


def test_help_page():
    help_page = default_argument_parser().format_help()
    for option in ("--config-file", "--resume", "--eval-only", "--num-gpus", "--machine-rank", "--dist-url", "opts"):
        assert option in help_page
    assert "%" not in help_page
    assert default_argument_parser(epilog="100 % our own").format_help().endswith("100 % our own\n")


@pytest.mark.parametrize(("machines", "url"), [(1, None), (2, "auto"), (2, None)])
def test_processes_that_cannot_find_each_other_are_not_started(machines, url):
    with pytest.raises(ValueError, match="tcp://"):
        launch(print, 2, num_machines=machines, dist_url=url)


@pytest.mark.parametrize("num_gpus", [0, 1])
def test_one_process_is_a_plain_call(num_gpus):
    seen = []
    launch(seen.append, num_gpus, args=("x",))
    assert seen == ["x"]
    model = nn.Linear(1, 1)
    assert create_ddp_model(model, broadcast_buffers=False) is model


def test_setup_seeds_and_logs(tmp_path, caplog):
    cfg = make_cfg(tmp_path, "CUDNN_BENCHMARK", True)
    before = torch.backends.cudnn.benchmark
    try:
        default_setup(cfg, argparse.Namespace(config_file="", eval_only=False))
        first = torch.rand(1)
        assert torch.backends.cudnn.benchmark
        default_setup(cfg, argparse.Namespace(config_file="", eval_only=True))
        assert torch.equal(torch.rand(1), first)
    finally:
        torch.backends.cudnn.benchmark = before
    log = (tmp_path / "log.txt").read_text()
    assert "Environment info:" in log and "Command line arguments:" in log


TWO_PROCESS_TRAINING = """
import itertools, json, sys
import torch
from torch import nn
from detectron2.engine import SimpleTrainer, launch
from detectron2.utils import comm

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.layer.weight, 1.0)

    def forward(self, x):
        return {"loss": self.layer(x).mean()}

def main(folder):
    rank = comm.get_rank()
    model = nn.parallel.DistributedDataParallel(Model())
    data = itertools.repeat(torch.tensor([[1.0 + 2.0 * rank]]))
    trainer = SimpleTrainer(model, data, torch.optim.SGD(model.parameters(), lr=0.5))
    trainer.train(0, 1)
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump([model.module.layer.weight.item(), trainer.storage.latest().get("total_loss")], file)

if __name__ == "__main__":
    launch(main, 2, dist_url="auto", args=(sys.argv[1],))
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="launch would use GPUs; this is about CPU processes")
def test_two_processes_train_on_the_mean_of_their_losses(run_script, tmp_path):
    run_script(TWO_PROCESS_TRAINING, str(tmp_path))
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    # Gradients 1 and 3, mean 2, rate 0.5; losses 1 and 3, mean 2, written by the main process only.
    assert first == [0.0, [2.0, 0]] and second == [0.0, None]


@pytest.fixture(autouse=True)
def release_log_files():
    """Handlers of one test's log file must not write during the next."""
    yield
    for name in ("detectron2", "fvcore"):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
