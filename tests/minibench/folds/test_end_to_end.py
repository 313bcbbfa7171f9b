"""Version 2 as people run it, with lengths that learn nothing: every step, and a kill in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
NAMES = "baseline,pading,projection,d2zero,conse,stacking,oracle_probe,oracle_label,oracle_supervised"
COMMAND = [sys.executable, "-m", "minibench", "run", "--version", "2", "--budget", "smoke", "--jobs", "1"]
COMMAND += ["--methods", NAMES]

pytestmark = pytest.mark.slow


def _start(out: Path, *arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*COMMAND, "--out", str(out), *arguments]
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _run(out: Path, *arguments: str) -> str:
    process = _start(out, *arguments)
    text = process.communicate(timeout=900)[0]
    assert process.returncode == 0, text
    return text


def _rows(out: Path) -> dict[tuple, dict]:
    content = json.loads((out / "results.json").read_text())
    return {(row["method"], row["fold"], row["seed"]): row["results"] for row in content["rows"]}


def test_it_runs_is_killed_and_goes_on_to_the_same_numbers(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    text = _run(whole)
    rows = _rows(whole)
    assert {name for name, *_ in rows} == set(NAMES.split(",")), text
    assert "One fold has no interval" in text
    for (name, *_), results in rows.items():
        tasks = {"segm", "region"} if name == "d2zero" else {"panoptic_seg", "sem_seg", "segm", "region"}
        assert set(results) == tasks, name
    assert rows["oracle_label", 1, 0]["panoptic_seg"]["PQ_se"] >= rows["baseline", 1, 0]["panoptic_seg"]["PQ_se"]
    entry = json.loads((whole / "results.json").read_text())["rows"][0]
    assert all(entry[key] for key in ("hash", "data", "vectors", "config", "code", "segmenter", "version"))

    process = _start(killed)
    deadline = time.monotonic() + 600
    while not list(killed.glob("runs/fold1-segmenter-*/features.npz")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (segmenter,) = killed.glob("runs/fold1-segmenter-*/model_final.pth")
    before = segmenter.stat().st_mtime_ns
    _run(killed)
    assert segmenter.stat().st_mtime_ns == before, "finished work was done again"
    assert _rows(killed) == rows

    # Another seed needs second stages alone; the given warm start, nothing of the warm start's world.
    again = _run(whole, "--seed-list", "1,2", "--methods", "pading")
    assert "done     fold1-second" in again and "done     fold1-segmenter" not in again
    start = next(whole.glob("runs/warm-start-*/model_final.pth"))
    _run(tmp_path / "given", "--warm-start", str(start), "--methods", "conse")
    assert set(_rows(tmp_path / "given")) == {("conse", 1, 0)}
    assert not (tmp_path / "given" / "data-40-20" / "mini2" / "warm-start").exists()
