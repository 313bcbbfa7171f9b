"""The benchmark as people run it: a stranger's method gets its row, and a kill at any moment costs minutes at most."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LIMITS = ["--budget", "smoke", "--jobs", "2"]
COMMAND = [sys.executable, "-m", "minibench", "run", *LIMITS]

pytestmark = pytest.mark.slow


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _run(out: Path, *arguments: str, command: Sequence[str] = COMMAND) -> subprocess.CompletedProcess:
    command = [*command, "--out", str(out), *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, env=_environment(), capture_output=True, text=True, timeout=600, check=False
    )


def _results(out: Path) -> dict[str, dict]:
    content = json.loads((out / "results.json").read_text())
    return {run["method"]: run["results"] for run in content["runs"]}


def test_a_strangers_folder_gets_its_row_with_numbers(tmp_path):
    folder = shutil.copytree(REPOSITORY / "examples" / "ridge", tmp_path / "ridge")
    out = tmp_path / "out"
    result = _run(out, "--methods", "ridge", "--plugins", str(folder))
    assert result.returncode == 0, result.stdout + result.stderr
    (metrics,) = _results(out)["ridge"].values()
    for task, keys in {"panoptic_seg": ["PQ_se", "PQ_un"], "sem_seg": ["mIoU"], "segm": ["AP50"]}.items():
        assert all(isinstance(metrics[task][key], float) for key in keys), (task, metrics[task])
    methods = json.loads((out / "results.json").read_text())["methods"]
    assert {"ridge": "ridge regression of classifiers"}.items() <= {m["name"]: m["title"] for m in methods}.items()
    for page in ("index.html", "report.md"):
        assert "ridge regression of classifiers" in (out / "report" / page).read_text(), page
    images = {path.name for path in (out / "report" / "pictures").iterdir()}
    assert {"classes_ridge.png", "confusion_ridge.png", "ridge_best_prediction.jpg"} <= images, images


def test_killed_midway_it_goes_on_and_gets_the_same_numbers(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = ["--methods", "d2zero", "--no-report"]
    result = _run(whole, *arguments)
    assert result.returncode == 0, result.stdout + result.stderr

    process = subprocess.Popen(
        [*COMMAND, "--out", str(killed), *arguments],
        cwd=REPOSITORY,
        env=_environment(),
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not list(killed.glob("runs/d2zero-*/model_0000001.pth")) and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (baseline,) = killed.glob("runs/baseline-*")
    before = {path: path.stat().st_mtime_ns for path in baseline.rglob("*") if path.is_file()}
    assert "d2zero" not in _results(killed)

    again = _run(killed, *arguments)
    assert again.returncode == 0, again.stdout + again.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before, "finished work was done again"
    (log,) = killed.glob("logs/d2zero-*.txt")
    starts = [line for line in log.read_text().splitlines() if "Starting training from iteration" in line]
    assert len(starts) == 2 and int(starts[1].split()[-1]) > 0, starts
    assert _results(killed) == _results(whole)
    assert not list(killed.glob("runs/*/model_0*.pth")), "intermediate checkpoints fill the disk"


def test_a_broken_method_costs_only_its_own_row(tmp_path):
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from detectron2.modeling import META_ARCH_REGISTRY\n"
        "@META_ARCH_REGISTRY.register()\n"
        "class Broken:\n"
        "    def __init__(self, cfg):\n"
        "        raise RuntimeError('the roof is on fire')\n"
    )
    entry = {"name": "broken", "title": "Broken", "task": "panoptic", "config": "configs/mini/panoptic-pretrain.yaml"}
    entry |= {"starts_from": "nothing", "iterations": 5}
    entry["set"] = {"PLUGINS": '("broken",)', "MODEL.META_ARCHITECTURE": "Broken"}
    (folder / "minibench.yaml").write_text(json.dumps({"methods": [entry]}))
    out = tmp_path / "out"
    result = _run(out, "--methods", "broken,baseline", "--plugins", str(folder), "--no-report")
    assert result.returncode == 1
    assert "RuntimeError: the roof is on fire" in result.stderr and f"log: {out}/logs/broken-seed1" in result.stderr
    assert set(_results(out)) == {"baseline"}


def test_settings_are_tried_on_the_tuning_split_and_the_best_short_ones_again(tmp_path):
    """The trials, their finals, the table; a trial that diverges; and once more, which repeats only that one."""
    folder = tmp_path / "mine"
    folder.mkdir()
    tune = {"keys": ["SOLVER.BASE_LR"], "trials": [[0.001], [0.002], [1e30], [0.004]], "iterations": 2, "finalists": 2}
    entry = {"name": "mine", "title": "Mine", "task": "instance", "config": "configs/mini/d2zero.yaml"}
    entry |= {"starts_from": "pretrained", "iterations": 3, "tune": tune}
    (folder / "minibench.yaml").write_text(json.dumps({"methods": [entry]}))
    out, command = tmp_path / "out", [sys.executable, "-m", "minibench", "tune", *LIMITS]
    arguments = ["--methods", "mine", "--plugins", str(folder)]
    result = _run(out, *arguments, command=command)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "mine.3-seed0 failed" in result.stderr
    assert result.stdout == (out / "tuning.md").read_text() + "\n"
    results = _results(out)
    finals = sorted(set(results) - {"baseline", "mine.1", "mine.2", "mine.4"})
    assert len(finals) == 2 and set(finals) < {"mine.1.final", "mine.2.final", "mine.4.final"}, results.keys()
    assert all("mini_tuning_val_instance" in results[name] for name in finals)
    lengths = {m["name"]: m["iterations"] for m in json.loads((out / "results.json").read_text())["methods"]}
    assert lengths["mine.1"] == 2 and lengths[finals[0]] == 3
    rows = [line for line in result.stdout.splitlines() if line.startswith("| 0.00") or line.startswith("| **0.00")]
    assert len(rows) == 3 and sum("– |" in row for row in rows) == 1, rows
    assert "| 1e+30 | – | – |" in result.stdout

    before = (out / "results.json").read_text()
    again = _run(out, *arguments, command=command)
    assert again.returncode == 1 and (out / "results.json").read_text() == before, again.stderr
