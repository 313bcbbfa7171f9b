"""Logging and events: if these fail, log files and metrics are not those of Detectron2."""

import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventStorage,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
)
from detectron2.utils.logger import create_small_table, log_every_n, log_first_n, setup_logger

from tests.d2lite.standin import standin_only

# --- logger ---------------------------------------------------------------------------------------------------------


def test_log_file_and_line_format(tmp_path, capsys):
    logger = setup_logger(str(tmp_path), name="detectron2", color=True)
    assert setup_logger(str(tmp_path), name="detectron2", color=True) is logger
    logging.getLogger("detectron2.some.module").info("hello")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert len(lines) == 1  # set up twice, written once
    assert re.fullmatch(r"\[\d\d/\d\d \d\d:\d\d:\d\d\] (d2|detectron2)\.some\.module INFO: hello", lines[0])
    assert re.search(r"\[\d\d/\d\d \d\d:\d\d:\d\d d2\.some\.module\]: .*hello", capsys.readouterr().out)
    assert logger.level == logging.DEBUG and not logger.propagate
    for handler in list(logger.handlers):
        logger.removeHandler(handler)


def test_other_ranks_write_to_files_of_their_own_and_not_to_the_terminal(tmp_path, capsys):
    name = f"rank_test_{tmp_path.name}"
    setup_logger(str(tmp_path / "run.log"), distributed_rank=2, name=name).info("from rank 2")
    assert "from rank 2" in (tmp_path / "run.log.rank2").read_text()
    assert capsys.readouterr().out == ""


@standin_only  # the genuine package stops
def test_a_log_file_that_cannot_be_made_is_no_reason_to_stop(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    logger = setup_logger(str(tmp_path / "file" / "run"), name=f"no_file_{tmp_path.name}")
    logger.info("goes on")
    out = capsys.readouterr().out
    assert "goes on" in out and str(tmp_path / "file" / "run" / "log.txt") in out


@standin_only  # the genuine package prints a traceback for each line
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device that is always full")
def test_a_full_disk_costs_log_lines_and_one_line_about_them(tmp_path, capsys):
    (tmp_path / "log.txt").symlink_to("/dev/full")
    logger = setup_logger(str(tmp_path), name=f"full_{tmp_path.name}")
    logger.info("first")
    logger.info("second")
    captured = capsys.readouterr()
    assert "first" in captured.out and "second" in captured.out
    assert captured.err.count("\n") == 1 and "No space left" in captured.err and "log.txt" in captured.err
    logger.handlers.clear()


@standin_only  # the genuine package loses the line
def test_log_files_take_every_character(tmp_path):
    """Class names are in all languages, and half a surrogate pair comes from damaged annotation files."""
    name = f"characters_{tmp_path.name}"
    setup_logger(str(tmp_path), distributed_rank=1, name=name).info("Käse 犬 \udce4")
    assert "Käse 犬 \\udce4" in (tmp_path / "log.txt.rank1").read_text(encoding="utf-8")


@standin_only  # the genuine package loses the line
def test_terminals_that_know_few_characters_still_show_the_message(tmp_path, monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", terminal)
    setup_logger(name=f"ascii_{tmp_path.name}").info("犬 is not a class")
    assert b"\\u72ac is not a class" in terminal.buffer.getvalue()


@standin_only  # the genuine package then prints each line twice
def test_a_new_format_replaces_the_old_one(tmp_path, capsys):
    name = f"twice_{tmp_path.name}"
    for short in ("a", "b"):
        setup_logger(name=name, abbrev_name=short, color=True)
    logging.getLogger(f"{name}.part").warning("once")
    (line,) = capsys.readouterr().out.splitlines()
    assert "WARNING" in line and " b.part]" in line and line.endswith("once")


def test_rate_limited_logging(caplog):
    with caplog.at_level(logging.INFO):
        for i in range(5):
            log_first_n(logging.INFO, f"first {i}", n=2, name="rate")
        for i in range(5):
            log_every_n(logging.INFO, f"every {i}", n=2, name="rate")
        for _ in range(2):
            log_first_n(logging.INFO, "same text", name="rate", key="message")
    texts = [record.getMessage() for record in caplog.records if record.name == "rate"]
    assert texts == ["first 0", "first 1", "every 0", "every 2", "every 4", "same text"]


def test_small_table():
    rows = create_small_table({"AP": 1.23456, "AP50": 7.0}).splitlines()
    assert len(rows) == 3
    assert [cell.strip() for cell in rows[0].strip("|").split("|")] == ["AP", "AP50"]
    assert [cell.strip() for cell in rows[2].strip("|").split("|")] == ["1.235", "7.000"]


# --- events ---------------------------------------------------------------------------------------------------------


def test_storage_is_found_only_inside_its_context():
    with pytest.raises(AssertionError):
        get_event_storage()
    with EventStorage(3) as outer:
        assert get_event_storage() is outer and outer.iter == 3
        with EventStorage() as inner:
            assert get_event_storage() is inner
        assert get_event_storage() is outer


def test_scalars_are_smoothed_by_the_median_of_twenty_unless_told_otherwise():
    values = [float((7 * i) % 31) for i in range(50)]
    with EventStorage() as storage:
        for i, value in enumerate(values):
            storage.iter = i
            storage.put_scalars(loss=value)
            storage.put_scalar("lr", value, smoothing_hint=False)
        with storage.name_scope("val"):
            storage.put_scalar("x", torch.tensor(2.0))
        smoothed = storage.latest_with_smoothing_hint(20)
    assert smoothed["loss"] == (float(np.median(values[-20:])), 49)
    assert smoothed["lr"] == (values[-1], 49)
    assert storage.latest()["val/x"] == (2.0, 49)
    assert storage.history("loss").values()[0] == (0.0, 0)
    with pytest.raises(AssertionError):
        storage.put_scalar("lr", 0.0, smoothing_hint=True)
    with pytest.raises(KeyError):
        storage.history("nothing")


def test_metrics_json_has_one_sorted_object_per_iteration(tmp_path):
    path = tmp_path / "metrics.json"
    with EventStorage() as storage:
        writer = JSONWriter(str(path))
        for i in range(3):
            storage.iter = i
            storage.put_scalar("b_loss", float(i))
            storage.put_scalar("a", 10.0 * i, smoothing_hint=False)
            if i != 1:
                writer.write()
        writer.write()  # nothing new: no line
        writer.close()
        writer = JSONWriter(str(path))  # a resumed run goes on in the same file
        storage.iter = 3
        storage.put_scalar("a", 5.0, smoothing_hint=False)
        writer.write()
        writer.close()
    lines = path.read_text().splitlines()
    assert lines[0] == '{"a": 0.0, "b_loss": 0.0, "iteration": 0}'
    assert json.loads(lines[1]) == {"a": 20.0, "b_loss": 1.0, "iteration": 2}
    assert json.loads(lines[-1])["a"] == 5.0 and json.loads(lines[-1])["iteration"] == 3


@standin_only  # the genuine package appends to the half line
def test_half_a_line_of_a_killed_run_costs_that_line_only(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text('{"a": 1.0, "iteration": 0}\n{"a": 2.0, "iter')
    with EventStorage(5) as storage:
        writer = JSONWriter(str(path))
        storage.put_scalar("a", 3.0)
        writer.write()
        writer.close()
    lines = path.read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in (lines[0], lines[2])] == [0, 5] and len(lines) == 3


@standin_only  # the genuine package keeps the deleted file open
def test_metrics_that_cannot_be_written_do_not_end_a_training(tmp_path, caplog):
    folder = tmp_path / "run"
    folder.mkdir()
    with caplog.at_level(logging.WARNING, "detectron2"), EventStorage() as storage:
        writer = JSONWriter(str(folder / "metrics.json"))
        shutil.rmtree(folder)
        for storage.iter in range(3):
            storage.put_scalar("a", 1.0)
            writer.write()
    (message,) = [record.getMessage() for record in caplog.records]
    assert str(folder / "metrics.json") in message and "No such file" in message


def test_the_printed_line_tells_progress_losses_and_rate(caplog):
    with caplog.at_level(logging.INFO, "detectron2"), EventStorage() as storage:
        printer = CommonMetricPrinter(max_iter=100)
        for i in range(20):
            storage.iter = i
            storage.put_scalars(total_loss=2.0, time=0.5, data_time=0.25)
            storage.put_scalar("lr", 1e-4, smoothing_hint=False)
        printer.write()
    (line,) = [r.getMessage() for r in caplog.records if r.name == "detectron2.utils.events"]
    assert re.match(
        r" eta: 0:00:40  iter: 19  total_loss: 2\s+time: 0\.5000\s+last_time: 0\.5000\s+"
        r"data_time: 0\.2500\s+last_data_time: 0\.2500\s+lr: 0\.0001",
        line,
    )
    assert storage.latest()["eta_seconds"] == (40.0, 19)


def test_tensorboard_files_hold_the_scalars(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with EventStorage(5) as storage:
        writer = TensorboardXWriter(str(tmp_path))
        storage.put_scalar("a/b", 1.5)
        storage.put_image("sample", np.zeros((3, 4, 5), dtype=np.uint8))
        writer.write()
        writer.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (scalar,) = events.Scalars("a/b")
    assert (scalar.step, scalar.value) == (5, 1.5)
    assert events.Tags()["images"] == ["sample"]


@standin_only
@pytest.mark.skipif(os.name != "posix", reason="needs limits of processes")
def test_event_files_are_given_up_when_the_disk_refuses_them(tmp_path):
    """Otherwise each write makes a new file, and a thread of TensorBoard prints a traceback."""
    pytest.importorskip("tensorboard")
    script = f"""
import resource
from detectron2.utils.events import EventStorage, TensorboardXWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
with EventStorage() as storage:
    writer = TensorboardXWriter({str(tmp_path)!r})
    for storage.iter in range(50):
        storage.put_scalar("loss", 1.0)
        writer.write()
    writer.close()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.iterdir())) == 1
    assert "Traceback" not in done.stderr and done.stderr.count("training goes on") == 1


def test_a_folder_that_tensorboard_cannot_name_does_not_end_the_training(tmp_path, monkeypatch):
    """In the locale C, Python reads the letters of a path beyond ASCII as surrogates, which are not UTF-8."""
    # Not caplog: pytest-xdist cannot send what it captures, the folder's name, to the main process.
    logger, said = logging.getLogger("detectron2.utils.events"), []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "propagate", False)
    with EventStorage() as storage:
        writer = TensorboardXWriter(str(tmp_path / "gr\udcc3\udcb6ße"))
        storage.put_scalar("loss", 1.0)
        writer.write()
        writer.close()
    assert len(said) == 1 and "cannot be written to" in said[0] and "training goes on" in said[0]
