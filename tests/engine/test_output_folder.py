"""The folder of a training: nobody loses one by a forgotten flag, and two do not mix their files."""

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import PADing.engine
from PADing.engine import output_folder
from PADing.engine.main import main
from PADing.engine.output_folder import LOCK, discard_training, keeping_config, training_folder, training_in
from PADing.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
MINI = ["--config-file", str(REPOSITORY / "configs" / "mini" / "panoptic-PADing.yaml"), "--num-gpus", "0"]
# Holds the folder, with a forked child that lives on, as a data-loading worker does for some seconds.
HOLDER = """
import os, sys, time
from PADing.engine.output_folder import training_folder
with training_folder(sys.argv[1], resume=True, overwrite=False):
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
    print("held", flush=True)
    time.sleep(20)
"""


@pytest.fixture
def holder(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    assert process.stdout.readline() == "held\n"
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_second_training_in_one_folder_is_refused_and_told_who_is_there(tmp_path, holder):
    """Checkpoints half of one training and half of another would load without a word."""
    for overwrite in (False, True):
        with (
            pytest.raises(UserError, match=rf"in use: a training is running there \(process {holder.pid} on .*since"),
            training_folder(tmp_path, resume=False, overwrite=overwrite),
        ):
            pytest.fail("entered")
    assert f"process {holder.pid} " in training_in(tmp_path)


def test_lock_of_a_killed_training_blocks_nobody(tmp_path, holder):
    """Not even while a worker that it has forked is still there."""
    holder.kill()
    holder.wait()
    assert (tmp_path / LOCK).is_file()
    assert training_in(tmp_path) == ""
    start = time.monotonic()
    with training_folder(tmp_path, resume=False, overwrite=False):
        assert f"process {os.getpid()} " in training_in(tmp_path)
    assert time.monotonic() - start < 5
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("name", ["model_final.pth", "model_0004999.pth", "last_checkpoint"])
def test_a_folder_with_a_training_needs_a_flag(tmp_path, name):
    (tmp_path / name).write_text("hours of work")
    with pytest.raises(UserError, match=rf"(?s){name}.*--resume.*--overwrite"), training_folder(tmp_path, False, False):
        pytest.fail("entered")
    with training_folder(tmp_path, resume=True, overwrite=False):
        pass
    with training_folder(tmp_path, resume=False, overwrite=True):
        pass
    assert (tmp_path / name).read_text() == "hours of work"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_command_refuses_before_it_writes_anything(tmp_path, capsys):
    """config.yaml would otherwise be that of a training that never was."""
    (tmp_path / "model_final.pth").write_text("hours of work")
    assert main([*MINI, "OUTPUT_DIR", str(tmp_path)]) == 2
    assert "holds a finished training (model_final.pth)" in capsys.readouterr().err
    assert main([*MINI, "--resume", "--overwrite", "OUTPUT_DIR", str(tmp_path)]) == 2
    assert "choose one" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model_final.pth"]


def test_replacing_leaves_nothing_that_could_pass_for_the_new_training(tmp_path):
    """An old last_checkpoint would be resumed after the new training is stopped; old results would be its results."""
    for name in ("model_final.pth", "model_0000004.pth", "last_checkpoint", "results.json", "metrics.json", "log.txt"):
        (tmp_path / name).write_text("old")
    discard_training(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"metrics.json": "", "log.txt": "old"}


def test_files_that_a_killed_training_was_writing_are_removed(tmp_path):
    (tmp_path / ".model_0000004.abc.tmp.pth").write_text("half")
    (tmp_path / ".another.tmp.pth").write_text("not ours")
    with training_folder(tmp_path, False, False):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".another.tmp.pth"]


def test_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"OUTPUT_DIR: .*file"), training_folder(tmp_path / "file", False, False):
        pytest.fail("entered")


@pytest.mark.parametrize("sign", ["model_final.pth", LOCK, None])
def test_evaluation_leaves_the_settings_of_a_training_alone(tmp_path, monkeypatch, sign):
    """They are what the training has to be resumed with; a folder of evaluations alone shows those of the last one."""
    (tmp_path / "config.yaml").write_text("of the training")
    if sign == LOCK:
        monkeypatch.setattr("PADing.engine.output_folder.training_in", lambda folder: "process 1")
    elif sign:
        (tmp_path / sign).touch()
    with keeping_config(tmp_path):
        (tmp_path / "config.yaml").write_text("of the evaluation")
    assert (tmp_path / "config.yaml").read_text() == ("of the training" if sign else "of the evaluation")


def test_a_system_without_file_locks_trains_without_them(tmp_path, monkeypatch):
    """Windows has no module fcntl."""
    monkeypatch.setattr(PADing.engine, "output_folder", output_folder)  # put back at the end
    monkeypatch.delitem(sys.modules, output_folder.__name__)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setattr(os, "register_at_fork", lambda **_: None)
    there = importlib.import_module(output_folder.__name__)
    with there.training_folder(tmp_path / "out", resume=False, overwrite=False):
        assert there.training_in(tmp_path / "out") == "" and not (tmp_path / "out" / LOCK).exists()
