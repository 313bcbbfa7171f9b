"""SOLVER.CHECKPOINT_ASYNC: the same checkpoints as without it, never a torn one, and no error that nobody hears of."""

import collections
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
import torch

from PADing.checkpoint_files import file_problem, write_checkpoint
from PADing.engine.background import BackgroundWriter, copied
from PADing.engine.checkpointer import TAG, TrainingCheckpointer
from PADing.errors import UserError
from tests.engine.test_interruption import stopped
from tests.engine.test_trainer import run, weights
from tests.engine.tiny import config

ASYNC = ["SOLVER.CHECKPOINT_ASYNC", True]
REPOSITORY = Path(__file__).resolve().parents[2]


# ---- the copy


def content():
    """State dicts with attributes, shared memory, views, and numbers, as checkpoints have them."""
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    net[1].weight = net[0].weight
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    model = net.state_dict()
    model["view"] = model["0.weight"][1:, ::2]
    generator = ("MT", torch.arange(5), 3, (1.5, None))
    return {"model": model, "optimizer": optimizer.state_dict(), "ranks": [{"rng": generator}], "iteration": 7}


def test_a_copy_is_written_as_the_original(tmp_path):
    original = content()
    for name, each in (("original", original), ("copy", copied(original))):
        write_checkpoint(tmp_path / f"{name}.pth", each)
    found = []
    for name in ("original", "copy"):  # archives name themselves inside, so the members are compared
        with zipfile.ZipFile(tmp_path / f"{name}.pth") as archive:
            found.append([(m.filename.partition("/")[2], archive.read(m)) for m in archive.infolist()])
    assert len(found[0]) > 5 and found[0] == found[1]


def test_a_copy_is_apart_from_the_training():
    original = content()
    twin = copied(original)
    before = twin["model"]["0.weight"].clone()
    original["model"]["0.weight"].zero_()
    original["optimizer"]["state"][0]["exp_avg"].zero_()
    original["optimizer"]["param_groups"][0]["lr"] = 9
    assert torch.equal(twin["model"]["0.weight"], before)
    assert twin["optimizer"]["state"][0]["exp_avg"].any() and twin["optimizer"]["param_groups"][0]["lr"] != 9
    shared = {twin["model"][name].untyped_storage().data_ptr() for name in ("0.weight", "1.weight", "view")}
    assert len(shared) == 1
    assert isinstance(twin["model"], collections.OrderedDict) and twin["model"]._metadata


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_copy_of_what_a_gpu_holds_takes_no_memory_there():
    original = {"model": {name: value.cuda() for name, value in content()["model"].items()}}
    original["model"]["view"] = original["model"]["0.weight"][1:, ::2]
    before = torch.cuda.memory_allocated()
    twin = copied(original)
    assert torch.cuda.memory_allocated() == before
    assert all(torch.equal(value.cpu(), twin["model"][name]) for name, value in original["model"].items())
    assert all(value.device.type == "cpu" for value in twin["model"].values())
    assert twin["model"]["view"].untyped_storage().data_ptr() == twin["model"]["0.weight"].untyped_storage().data_ptr()


# ---- the thread


def test_one_is_written_at_a_time():
    writer, running, most = BackgroundWriter(), [], []

    def write():
        running.append(1)
        most.append(len(running))
        time.sleep(0.02)
        running.pop()

    for _ in range(5):
        writer.start(write)
    writer.wait()
    assert most == [1] * 5 and not running


@pytest.mark.parametrize("ask", ["wait", "check", "start"])
def test_an_error_is_raised_once_where_it_is_asked_for(ask):
    writer = BackgroundWriter()

    def fail():
        raise UserError("Disk full: x")

    writer.start(fail)
    while writer._thread.is_alive():
        time.sleep(0.001)
    with pytest.raises(UserError, match="Disk full"):
        writer.start(lambda: None) if ask == "start" else getattr(writer, ask)()
    writer.check()
    writer.wait()


def test_checking_does_not_wait():
    writer, end = BackgroundWriter(), threading.Event()
    writer.start(end.wait)
    writer.check()
    assert writer._thread.is_alive()
    end.set()
    writer.wait()


# ---- in a training


def state(path):
    return torch.load(path, weights_only=True)


def assert_same(one, other, place=""):
    assert type(one) is type(other), place
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    elif isinstance(one, dict):
        assert list(one) == list(other), place
        for key in one:
            assert_same(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{place}[{i}]")
    else:
        assert one == other, place


@pytest.mark.parametrize("architecture", ["TinyOneOptimizer", "TinyTwoSteps"])
def test_checkpoints_and_results_are_those_of_a_training_without_it(tmp_path, monkeypatch, architecture):
    """Writing is slowed down, so that several iterations pass meanwhile."""
    opts = ["SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.EMA.ENABLED", True]
    plain = run(config(tmp_path / "plain", *opts, architecture=architecture))
    slow_down(monkeypatch, 0.1)
    beside = run(config(tmp_path / "beside", *opts, *ASYNC, architecture=architecture))
    assert (weights(plain) == weights(beside)).all()
    files = sorted(path.name for path in (tmp_path / "plain").glob("*.pth"))
    assert len(files) == 5 and files == sorted(path.name for path in (tmp_path / "beside").glob("*.pth"))
    for name in files:
        assert_same(state(tmp_path / "plain" / name), state(tmp_path / "beside" / name))


def slow_down(monkeypatch, seconds):
    def slow(path, content):
        time.sleep(seconds)
        write_checkpoint(path, content)

    monkeypatch.setattr("PADing.engine.checkpointer.write_checkpoint", slow)


def test_the_last_checkpoint_is_named_when_it_is_there(tmp_path, monkeypatch):
    checkpointer = TrainingCheckpointer(torch.nn.Linear(2, 2), str(tmp_path))
    checkpointer.background = BackgroundWriter()
    checkpointer.save("model_0000001", iteration=1)
    checkpointer.wait()
    slow_down(monkeypatch, 0.2)
    checkpointer.save("model_0000002", iteration=2)
    assert (tmp_path / TAG).read_text() == "model_0000001.pth" and not (tmp_path / "model_0000002.pth").exists()
    assert (checkpointer.begun, checkpointer.last_iteration) == (2, 1)
    checkpointer.wait()
    assert (tmp_path / TAG).read_text() == "model_0000002.pth" and checkpointer.last_iteration == 2


def test_a_stop_waits_for_the_checkpoint_and_does_not_repeat_it(tmp_path, monkeypatch, caplog):
    slow_down(monkeypatch, 0.3)
    cfg = config(tmp_path / "run", "SOLVER.CHECKPOINT_PERIOD", 3, *ASYNC)
    monkeypatch.setattr(logging.getLogger("fvcore.common.checkpoint"), "handlers", [caplog.handler])
    assert "3 of 8 iterations are saved" in stopped(cfg, monkeypatch, caplog, at=2)
    assert sorted(path.name for path in (tmp_path / "run").glob("*.pth")) == ["model_0000002.pth"]
    assert "4 of 8 iterations are saved" in stopped(cfg, monkeypatch, caplog, at=3)


def test_a_full_disk_ends_the_training_at_the_next_iteration(tmp_path, monkeypatch):
    """With the message that there is without it, and the last checkpoint intact."""
    opts = ["SOLVER.CHECKPOINT_PERIOD", 2, "TEST.EVAL_PERIOD", 0, "SOLVER.MAX_ITER", 400, *ASYNC]
    write = write_checkpoint

    def full(path, content):
        if path.name == "model_0000003.pth":
            raise UserError(f"Disk full: {path} cannot be written (0 MiB are free there).")
        write(path, content)

    monkeypatch.setattr("PADing.engine.checkpointer.write_checkpoint", full)
    with pytest.raises(UserError, match=r"Disk full: .*model_0000003.pth .*model_0000001.pth, is intact: --resume"):
        run(config(tmp_path, *opts))
    assert (tmp_path / TAG).read_text() == "model_0000001.pth"
    assert not [thread for thread in threading.enumerate() if thread.name == "checkpoint"]


def test_another_error_is_raised_when_the_disk_is_full_as_well(tmp_path, monkeypatch, caplog):
    def full(path, content):
        time.sleep(0.2)
        raise UserError("Disk full: it cannot be written.")

    monkeypatch.setattr("PADing.engine.checkpointer.write_checkpoint", full)
    monkeypatch.setattr(logging.getLogger("PADing.engine.trainer"), "handlers", [caplog.handler])
    failing = config(tmp_path, "SOLVER.CHECKPOINT_PERIOD", 3, "TEST.EVAL_PERIOD", 0, *ASYNC)
    run(failing, stop_before=3)  # a KeyboardInterrupt, which ``run`` expects
    assert "Disk full: it cannot be written. Nothing is saved yet." in caplog.text


TRAIN = """
import sys
from tests.engine.test_trainer import run
from tests.engine.tiny import config
run(config(sys.argv[1], "SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.CHECKPOINT_KEEP", 2, "TEST.EVAL_PERIOD", 0,
           "SOLVER.MAX_ITER", 100000, "SOLVER.CHECKPOINT_ASYNC", True), resume=True)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_the_last_good_checkpoint(tmp_path):
    """Twelve times, at random moments; each time the training goes on from what is there."""
    random.seed(7)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    reached = -1
    for _ in range(12):
        process = subprocess.Popen([sys.executable, "-c", TRAIN, str(tmp_path)], env=environment, cwd=REPOSITORY,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        begin = time.monotonic()
        before = (tmp_path / TAG).read_text() if reached >= 0 else ""
        while not (tmp_path / TAG).exists() or (tmp_path / TAG).read_text() == before:
            assert process.poll() is None and time.monotonic() - begin < 60
            time.sleep(0.005)
        time.sleep(random.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        process.wait()
        name = (tmp_path / TAG).read_text()
        assert not file_problem(tmp_path / name)
        assert state(tmp_path / name)["iteration"] > reached
        reached = state(tmp_path / name)["iteration"]


def test_a_disk_that_is_really_full_is_told_as_without_it(tmp_path):
    """A small file system is filled, where that is allowed; the error comes from the thread."""
    mount, place = shutil.which("mount"), tmp_path / "small"
    place.mkdir()
    if os.name != "posix" or os.geteuid() or not mount:
        pytest.skip("mounting a file system needs root")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=200k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("this machine does not let root mount a file system")
    try:
        checkpointer = TrainingCheckpointer(torch.nn.Linear(100, 100), str(place))
        checkpointer.background = BackgroundWriter()
        checkpointer.save("model_0000001", iteration=1)
        checkpointer.wait()
        checkpointer.add_checkpointable("large", torch.nn.Linear(400, 400))
        checkpointer.save("model_0000002", iteration=2)
        with pytest.raises(UserError, match=r"Disk full: .*model_0000002.pth .*model_0000001.pth, is intact: --resume"):
            checkpointer.wait()
        assert {path.name for path in place.iterdir()} == {"model_0000001.pth", TAG}
        assert checkpointer.last_iteration == 1 and not file_problem(place / "model_0000001.pth")
    finally:
        subprocess.run(["umount", place], check=True)
