"""A few cases of each kind of the fault battery, and the battery's own judgement."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE = (
    *("kills/data", "files/full/data-00", "files/limit/data-00", "surroundings/output/00"),
    *("inputs", "soak/prediction"),
)


def battery(*words):
    command = [sys.executable, "-m", "tests.faults", *map(str, words)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(sys.platform != "linux", reason="the battery needs Linux")
def test_a_sample_of_every_kind_survives(tmp_path):
    run = battery("--only", *SAMPLE, "--scale", 0.002, "--output", tmp_path, "--seed", 6)
    assert run.returncode == 0, run.stdout + run.stderr
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    outcomes = {(line["case"].split("/")[0], line["outcome"]) for line in lines}
    assert {kind for kind, outcome in outcomes if outcome == "survived"} == {
        "kills",
        "files",
        "surroundings",
        "inputs",
        "soak",
    }
    assert re.search(r"\| all \| \d+ \| \d+ \| 0 \|", (tmp_path / "table.md").read_text())


JUDGED = """
import os, sys, time
from pathlib import Path
from tests.faults.battery import Case, Record, Skip, run

def fails(folder, _):
    assert 1 == 2, "one is two"

def skips(folder, _):
    raise Skip("not here")

cases = [
    Case("a/fails/0", fails), Case("a/skips/0", skips), Case("a/dies/0", lambda *_: os.abort()),
    Case("a/hangs/0", lambda *_: time.sleep(60), seconds=-59), Case("a/passes/0", lambda *_: "well"),
    *(Case(f"b/group/{n}", lambda *_, n=n: os.abort() if n == 1 else "", group="b") for n in range(3)),
]
record = Record(Path(sys.argv[1]), 7)
run(cases, record, Path(sys.argv[1]) / "work", float("inf"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the battery needs Linux")
def test_the_battery_sees_what_fails_hangs_and_dies(tmp_path):
    """In a process of its own, because it forks."""
    run = subprocess.run([sys.executable, "-c", JUDGED, tmp_path], cwd=REPOSITORY, capture_output=True, text=True,
                         env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, timeout=120)  # fmt: skip
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    outcomes = {line["case"]: line["outcome"] for line in lines}
    assert outcomes == {
        **{"a/fails/0": "failed", "a/skips/0": "skipped", "a/dies/0": "failed", "a/hangs/0": "failed"},
        **{"a/passes/0": "survived", "b/group/0": "survived", "b/group/1": "failed", "b/group/2": "survived"},
    }
    assert "repeat: python -m tests.faults --seed 7 --only a/fails/0" in run.stdout
    assert "one is two" in run.stdout


def test_names_that_no_case_has_are_refused(tmp_path, monkeypatch, capsys):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # which the battery sets for itself
        monkeypatch.setenv(name, "1")
    from tests.faults import __main__ as command

    monkeypatch.setattr(sys, "argv", ["tests.faults", "--only", "kils", "--output", str(tmp_path / "out")])
    assert command.main() == 2 and "--list" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
