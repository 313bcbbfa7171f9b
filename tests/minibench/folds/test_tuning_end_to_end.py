"""Choosing hyperparameters and the cause experiments as people run them, learning nothing, and with a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minibench.folds.grid import read_grid

REPOSITORY = Path(__file__).resolve().parents[3]
TUNE = ["tune", "--version", "2", "--budget", "smoke", "--fold-list", "1,2", "--methods", "projection", "--jobs", "1"]

pytestmark = pytest.mark.slow


def _start(*arguments: str | Path) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "minibench", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _run(*arguments: str | Path, status: int = 0) -> str:
    process = _start(*arguments)
    text = process.communicate(timeout=1800)[0]
    assert process.returncode == status, text
    return text


def test_settings_are_tried_killed_and_continued_and_causes_read_the_same_features(tmp_path):
    out, causes, tried = tmp_path / "tuned", tmp_path / "causes", len(read_grid(["projection"])["projection"][1])
    process = _start(*TUNE, "--output", out)
    deadline = time.monotonic() + 1500
    while len(list(out.glob("trial_rows/*.json"))) < 3 and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = {path: path.stat().st_mtime_ns for path in out.glob("trial_rows/*.json")}
    assert 3 <= len(before) < 2 * tried and not (out / "tuning.json").exists()
    text = _run(*TUNE, "--output", out)
    assert all(path.stat().st_mtime_ns == then for path, then in before.items()), "finished rows were run again"
    content = json.loads((out / "tuning.json").read_text())
    rows = content["methods"]["projection"]["rows"]
    assert {(row["trial"], row["fold"]) for row in rows} == {
        (f"projection.{number}", fold) for number in range(1, tried + 1) for fold in (1, 2)
    }
    assert "†" in text and (out / "chosen.yaml").read_text().count("SOLVER.BASE_LR") == 1
    torn = next(iter(before))
    torn.write_text(torn.read_text()[:40])
    assert "is damaged. Delete it" in _run(*TUNE, "--output", out, status=2)
    torn.unlink()
    _run(*TUNE, "--output", out)

    told = _run("causes", out, "--experiments", "self_training,image_background", "--output", causes, "--jobs", "1")
    content = json.loads((causes / "causes.json").read_text())
    assert {row["trial"] for row in content["rows"]} == {
        f"self_training.{name}" for name in ("neither", "images", "labels", "both")
    }
    assert content["folds"] == [1, 2] and content["world"] == "tuning"
    assert "no hyperparameters chosen yet" in told or content["chosen"]
    assert "Not run. The rows are d2zero,d2zero_no_image_background" in told
    assert "is the benchmark itself" in _run("causes", out, "--output", out, status=2)
    assert "no features of the folds 3 yet" in _run("causes", out, "--fold-list", "3", "--output", causes, status=2)
