"""Logging, events, processes and small helpers: if these fail, log files and figures are not those of Detectron2."""

import io
import json
import logging
import os
import random
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventStorage,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
)
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table, log_every_n, log_first_n, setup_logger
from detectron2.utils.memory import retry_if_cuda_oom
from detectron2.utils.registry import Registry

from tests.d2lite.standin import standin_only


def test_registry():
    registry = Registry("THING")

    @registry.register()
    class A:
        pass

    assert registry.get("A") is A and "A" in registry and [name for name, _ in registry] == ["A"]
    with pytest.raises(KeyError, match="THING"):
        registry.get("B")
    with pytest.raises(AssertionError):
        registry.register(A)


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


def test_a_log_file_that_cannot_be_made_is_no_reason_to_stop(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    logger = setup_logger(str(tmp_path / "file" / "run"), name=f"no_file_{tmp_path.name}")
    logger.info("goes on")
    out = capsys.readouterr().out
    assert "goes on" in out and str(tmp_path / "file" / "run" / "log.txt") in out


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


def test_log_files_take_every_character(tmp_path):
    """Class names are in all languages, and half a surrogate pair comes from damaged annotation files."""
    name = f"characters_{tmp_path.name}"
    setup_logger(str(tmp_path), distributed_rank=1, name=name).info("Käse 犬 \udce4")
    assert "Käse 犬 \\udce4" in (tmp_path / "log.txt.rank1").read_text(encoding="utf-8")


def test_terminals_that_know_few_characters_still_show_the_message(tmp_path, monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", terminal)
    setup_logger(name=f"ascii_{tmp_path.name}").info("犬 is not a class")
    assert b"\\u72ac is not a class" in terminal.buffer.getvalue()


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


def test_figures_that_cannot_be_written_do_not_end_a_training(tmp_path, caplog):
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
        storage.put_image("picture", np.zeros((3, 4, 5), dtype=np.uint8))
        writer.write()
        writer.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (scalar,) = events.Scalars("a/b")
    assert (scalar.step, scalar.value) == (5, 1.5)
    assert events.Tags()["images"] == ["picture"]


# --- processes, seeds, memory, paths ----------------------------------------------------------------------------------


def test_a_single_process_needs_no_group():
    assert (comm.get_world_size(), comm.get_rank(), comm.get_local_rank(), comm.get_local_size()) == (1, 0, 0, 1)
    assert comm.is_main_process()
    comm.synchronize()
    losses = {"a": torch.tensor(1.0)}
    assert comm.all_gather("x") == ["x"] and comm.gather("x") == ["x"] and comm.reduce_dict(losses) is losses
    np.random.seed(4)
    expected = np.random.randint(2**31)
    np.random.seed(4)
    assert comm.shared_random_seed() == expected


TWO_PROCESSES = """
import json, sys
from datetime import timedelta
import numpy as np, torch
from detectron2.engine import launch
from detectron2.utils import comm

def main(folder):
    rank = comm.get_rank()
    np.random.seed(rank)
    result = {
        "size": comm.get_world_size(), "local": [comm.get_local_rank(), comm.get_local_size()],
        "main": comm.is_main_process(),
        "all_gather": comm.all_gather({"rank": rank}), "gather": comm.gather("x" * rank, dst=0),
        "seed": comm.shared_random_seed(),
        "waits": comm.get_local_process_group()._get_backend(torch.device("cpu")).options._timeout.total_seconds(),
        "reduced": float(comm.reduce_dict({"a": torch.tensor(float(rank + 1))})["a"]),
    }
    comm.synchronize()
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(result, file)

if __name__ == "__main__":
    launch(main, num_gpus_per_machine=2, dist_url="auto", args=(sys.argv[1],), timeout=timedelta(hours=5))
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="launch would use GPUs; this is about CPU processes")
def test_two_processes_talk_over_gloo(run_script, tmp_path):
    run_script(TWO_PROCESSES, str(tmp_path))
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["size"] == second["size"] == 2
    assert first["local"] == [0, 2] and second["local"] == [1, 2]
    assert first["main"] and not second["main"]
    assert first["all_gather"] == second["all_gather"] == [{"rank": 0}, {"rank": 1}]
    assert first["gather"] == ["", "x"] and second["gather"] == []
    np.random.seed(0)
    assert first["seed"] == second["seed"] == np.random.randint(2**31)
    assert first["reduced"] == 1.5
    # All groups wait as long as the job was told to: one that gives up earlier ends the whole job.
    assert first["waits"] == second["waits"] == 5 * 3600


@pytest.mark.parametrize("seed", [2**32, -1])
def test_a_seed_that_numpy_cannot_take_is_refused(seed):
    """The genuine package refuses it; half seeded, a run could not be repeated."""
    seed_all_rng(5)
    expected = random.random(), float(np.random.rand()), float(torch.rand(()))
    seed_all_rng(5)
    with pytest.raises(ValueError, match="2\\*\\*32"):
        seed_all_rng(seed)
    assert (random.random(), float(np.random.rand()), float(torch.rand(()))) == expected
    seed_all_rng(2**32 - 1)


def test_what_cannot_be_found_out_about_the_machine_is_called_unknown(monkeypatch):
    """The table is written at the start of every training; it must never be the end of one."""

    def broken(*args):
        raise RuntimeError("no such driver")

    monkeypatch.setattr(torch.cuda, "is_available", broken)
    monkeypatch.setattr("importlib.metadata.version", broken)
    report = collect_env_info()
    assert report.count("no such driver") >= 4 and torch.__version__ in report


def test_seeding_covers_all_generators():
    def draw():
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    seed_all_rng(5)
    first = draw()
    seed_all_rng(5)
    assert draw() == first
    seed_all_rng()
    assert draw() != first


def test_out_of_memory_is_retried_and_other_errors_are_not():
    calls = []

    @retry_if_cuda_oom
    def fails_twice(x):
        calls.append(x)
        if len(calls) < 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
        return x + 1

    assert fails_twice(1) == 2 and len(calls) == 3

    @retry_if_cuda_oom
    def other():
        calls.append(None)
        raise RuntimeError("shapes differ")

    calls.clear()
    with pytest.raises(RuntimeError, match="shapes"):
        other()
    assert len(calls) == 1


def test_detectron2_names_resolve_through_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    cached = tmp_path / "detectron2" / "some" / "weights.txt"
    cached.parent.mkdir(parents=True)
    cached.write_text("content")
    assert PathManager.get_local_path("detectron2://some/weights.txt") == str(cached)
    with PathManager.open("detectron2://some/weights.txt") as file:
        assert file.read() == "content"


def test_offline_the_message_says_where_to_put_the_file(run_standin, tmp_path):
    # Port 9 of this machine answers nobody, so the download fails at once.
    code = """
from detectron2.utils.file_io import Detectron2Handler, PathManager
Detectron2Handler.S3_DETECTRON2_PREFIX = "http://127.0.0.1:9/detectron2/"
try:
    PathManager.get_local_path("detectron2://some/weights.pkl")
except FileNotFoundError as error:
    print(error)
"""
    message = run_standin(code, FVCORE_CACHE=str(tmp_path), http_proxy="", HTTP_PROXY="", no_proxy="*")
    assert "detectron2://some/weights.pkl" in message
    assert str(tmp_path / "detectron2" / "some" / "weights.pkl") in message


def test_downloads_are_not_taken_from_a_folder_of_all_users(run_standin, tmp_path):
    """When the cache cannot be written, iopath turns to a folder where another user may have put other weights."""
    planted = tmp_path / "iopath_cache" / "detectron2" / "some" / "weights.pkl"
    planted.parent.mkdir(parents=True)
    planted.write_text("another user's")
    (tmp_path / "file").write_text("")
    code = """
from detectron2.utils.file_io import PathManager
for name in ("detectron2://some/weights.pkl", "http://127.0.0.1:9/detectron2/some/weights.pkl"):
    try:
        print(PathManager.get_local_path(name))
    except OSError as error:
        print(error)
"""
    said = run_standin(code, FVCORE_CACHE=str(tmp_path / "file" / "cache"), TMPDIR=str(tmp_path)).splitlines()
    assert len(said) == 2 and all("Set FVCORE_CACHE to a folder" in line for line in said)


@standin_only  # iopath alone would download the file again, to elsewhere
def test_a_cache_that_can_only_be_read_is_used(tmp_path, monkeypatch):
    cached = tmp_path / "detectron2" / "weights.txt"
    cached.parent.mkdir()
    cached.write_text("content")
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    monkeypatch.setattr("os.access", lambda *arguments: False)
    assert PathManager.get_local_path("detectron2://weights.txt") == str(cached)
