"""Too little memory ends in a message with the settings of the run, and ``--find-batch-size`` finds what fits."""

import argparse
import errno
import subprocess
import sys

import pytest
import torch

from PADing.command_line import run_command
from PADing.config import load_config
from PADing.data.mini_files import make_mini_coco
from PADing.engine import batch_size
from PADing.engine.batch_size import Trial, report, search
from PADing.engine.main import main
from PADing.engine.memory import OutOfMemory, explain, explaining_memory, is_out_of_memory
from PADing.errors import UserError
from tests.engine.tiny import TinyTrainer
from tests.engine.tiny import config as tiny_config
from tests.golden.util import REPOSITORY

CONFIG = str(REPOSITORY / "configs" / "mini" / "panoptic-pretrain.yaml")


def real_error():
    """PyTorch's own error for more memory than there is."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    return caught.value


def test_which_errors_are_for_want_of_memory():
    wanting = [real_error(), MemoryError(), torch.OutOfMemoryError("x"), OSError(errno.ENOMEM, "x")]
    wanting += [RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")]
    assert all(map(is_out_of_memory, wanting))
    others = [
        RuntimeError("shapes differ"),
        OSError(errno.ENOENT, "x"),
        UserError("out of memory"),
        ValueError("memory"),
    ]
    assert not any(map(is_out_of_memory, others))


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes differ"), explaining_memory(load_config(CONFIG), True):
        raise RuntimeError("shapes differ")


def test_message_names_what_a_run_does_not_use_yet(monkeypatch):
    """A hint at a key that is set already would not help."""
    keys = ["MODEL.BACKBONE.ACTIVATION_CHECKPOINTING", "MODEL.SEM_SEG_HEAD.ACTIVATION_CHECKPOINTING"]
    monkeypatch.setattr("PADing.engine.memory.comm.get_world_size", lambda: 4)
    text = explain(load_config(CONFIG), training=True)
    assert all(f"{key} True" in text for key in keys) and "SOLVER.SHARDING optimizer keeps 1/4 of it" in text
    used = explain(load_config(CONFIG, [keys[0], True, "SOLVER.SHARDING", "optimizer"]), training=True)
    assert keys[0] not in used and keys[1] in used and "SHARDING" not in used


def test_message_names_the_sizes_of_this_run():
    text = explain(load_config(CONFIG, ["SOLVER.ACCUMULATE", 2, "DATALOADER.NUM_WORKERS", 3]), training=True)
    for part in (
        "4 image(s) at a time",
        "IMS_PER_BATCH 8",
        "ACCUMULATE 2",
        "128 x 128",
        "784 points",
        "3 data-loading",
    ):
        assert part in text
    assert "INPUT.MAX_SIZE_TEST" in explain(load_config(CONFIG), training=False)


@pytest.mark.parametrize("place", ["run_step", "after_step"])
def test_training_ends_with_the_message_and_no_traceback(place, tmp_path, monkeypatch, capsys):
    """Also if the error comes from a hook, such as an evaluation; PADING_TRACEBACK=1 shows where."""

    class Greedy(TinyTrainer):
        def before_step(self):
            super().before_step()
            if place == "run_step":
                self._trainer.recipe.step = lambda *_: torch.empty(2**60)

        @classmethod
        def build_evaluator(cls, cfg, dataset_name, output_folder=None):
            raise MemoryError

    assert run_command(Greedy(tiny_config(tmp_path)).train) == 2
    shown = capsys.readouterr()
    assert "error: Out of memory on the CPU" in shown.err
    assert "Traceback" not in shown.err.split("error: Out")[1]
    monkeypatch.setenv("PADING_TRACEBACK", "1")
    with pytest.raises(OutOfMemory):
        run_command(Greedy(tiny_config(tmp_path / "again")).train)


@pytest.mark.parametrize("largest", [0, 1, 2, 3, 5, 8, 21, 64, 1000])
@pytest.mark.parametrize("unit", [1, 4])
def test_search_finds_the_largest(largest, unit):
    tried = list(search(lambda images: Trial(images, images <= largest * unit), unit, most=64))
    found = max((trial.images for trial in tried if trial.fits), default=0)
    assert found == min(largest, 64) * unit
    assert len(tried) <= 13
    assert all(trial.images % unit == 0 for trial in tried)


def test_report_scales_the_learning_rate_and_keeps_the_batch_by_accumulating():
    """16 images at 0.001 for 1500 iterations; 6 fit, so 8 parts of 2 keep the batch."""
    cfg = load_config(CONFIG, ["SOLVER.IMS_PER_BATCH", 16])
    text = report(cfg, [Trial(4, True, 2**30, 3.5), Trial(8, False), Trial(6, True, 2**31, 4.0)])
    assert "SOLVER.IMS_PER_BATCH 6 SOLVER.BASE_LR 0.000375 SOLVER.MAX_ITER 4000" in text
    assert "SOLVER.ACCUMULATE 4" in text
    assert [line.split()[0] for line in text.splitlines()[1:4]] == ["4", "6", "8"]
    with pytest.raises(UserError, match="Not even a batch of 1 fits"):
        report(cfg, [Trial(1, False)])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--find-batch-size"], "needs --memory-limit GIB"),
        (["--memory-limit", "2"], "is a flag for --find-batch-size"),
        (["--find-batch-size", "--resume"], "Leave out --resume"),
        (["--find-batch-size", "--fast-dev-run"], "Leave out --fast-dev-run"),
    ],
)
def test_flags_that_do_not_fit(flags, message, tmp_path, capsys):
    argv = ["--config-file", CONFIG, "--num-gpus", "0", *flags, "OUTPUT_DIR", str(tmp_path), "DATASETS.TRAIN", "()"]
    assert main(argv) == 2
    shown = capsys.readouterr().err
    assert message in shown or "DATASETS.TRAIN is empty" in shown and "--memory-limit GIB" in message


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "much"])
def test_limit_that_is_no_size(limit, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--config-file", CONFIG, "--find-batch-size", f"--memory-limit={limit}"])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit the memory of a process so")
def test_trials_on_the_cpu(tmp_path, monkeypatch):
    """True trials: one that fits, and one that PyTorch cannot allocate within the limit."""
    make_mini_coco(tmp_path / "mini", train=4, val=2, size=64)
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    opts = ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path / "out")]
    arguments = argparse.Namespace(config_file=CONFIG, opts=opts)
    fitting, too_large = (batch_size.try_batch(arguments, 2, limit) for limit in (None, 2**29))
    assert fitting.fits and fitting.peak > 2**28 and fitting.speed > 0
    assert too_large == Trial(2, False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("limit, out_of_memory", [(2**30, True), (None, False)])
def test_a_crash_counts_as_out_of_memory_at_a_limit_alone(monkeypatch, caplog, limit, out_of_memory):
    """Some libraries use a block without a check whether they got it."""
    crashed = subprocess.CompletedProcess([], -11, "", "Fatal Python error: Segmentation fault")
    monkeypatch.setattr(batch_size.subprocess, "run", lambda *args, **options: crashed)
    arguments = argparse.Namespace(opts=[], config_file=CONFIG)
    if out_of_memory:
        with caplog.at_level("WARNING"):
            assert not batch_size.try_batch(arguments, 2, limit).fits
        assert "A batch of 2 crashed" in caplog.text and "Segmentation fault" in caplog.text
        return
    with pytest.raises(UserError, match="Segmentation fault"):
        batch_size.try_batch(arguments, 2, limit)
