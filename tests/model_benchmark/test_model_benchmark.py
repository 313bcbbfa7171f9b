"""The benchmark must set figures side by side that belong together, and say so when a contender fails."""

import argparse
import json
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from PADing import waiting
from PADing.commands.benchmark import main
from PADing.model_benchmark import run as benchmark
from PADing.model_benchmark import workload
from PADing.model_benchmark.run import OURS, ratio
from tests.recorded_graphs import record_graphs

REPOSITORY = Path(__file__).parents[2]
STAGES = ("backbone", "pixel decoder", "transformer decoder")
CONTENDER = """
    import argparse, json, sys
    parser = argparse.ArgumentParser()
    for name in ("task", "output", "height", "width", "repeats", "threads", "dtype"):
        parser.add_argument("--" + name, required=True)
    args = parser.parse_args()
    if {fails!r}:
        sys.exit("no such model")
    json.dump({result}, open(args.output, "w"))
"""


@pytest.fixture
def program(tmp_path):
    """Writes a contender: NAME=COMMAND."""

    def make(name, result="{'seconds': [2.0] * int(args.repeats), 'peak_mb': int(args.height)}", fails=False):
        path = tmp_path / f"{name}.py"
        path.write_text(textwrap.dedent(CONTENDER).format(result=result, fails=fails))
        return f"{name}={sys.executable} {path}"

    return make


@pytest.fixture
def own(program, monkeypatch):
    """In the place of this checkout a program that takes a second."""
    path = program("own", "{'seconds': [1.0], 'cpu_seconds': [1.5], 'stages': {'backbone': 0.25}}").split()[-1]
    monkeypatch.setattr(benchmark, "WORKLOAD", path)
    source = open(path).read().replace('"dtype"):', '"dtype", "root"):')
    open(path, "w").write(source)


def test_contenders_take_turns_and_share_a_table(own, program, tmp_path, capsys):
    output = tmp_path / "result.json"
    args = ["model", "--task", "panoptic", "--rounds", "2", "--repeats", "3", "--height", "77", "--threads", "1"]
    assert main([*args, "--beside", program("other"), "--output", str(output)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "| panoptic | this | 1.000 | 1.000 | 1.500 | 1 | - |" in "\n".join(lines)
    assert "| panoptic | other | 2.000 | 2.000 | - | 2.00 (2.00 to 2.00) | 77 |" in "\n".join(lines)
    assert "| panoptic | this | backbone | 0.250 |" in lines
    rows = json.loads(output.read_text())["rows"]
    assert [(r["contender"], r["round"]) for r in rows] == [("this", 1), ("other", 1), ("other", 2), ("this", 2)]


@pytest.mark.parametrize(
    ("result", "fails", "message"),
    [
        ("{}", True, "no such model"),
        ("{'time': 3}", False, "is no result: KeyError"),
        ("{'seconds': []}", False, "no positive times"),
        ("{'seconds': [float('nan')]}", False, "no positive times"),
        ("'fast'", False, "is no result"),
    ],
)
def test_a_contender_that_fails_is_reported(own, program, capsys, result, fails, message):
    args = ["model", "--task", "training", "--rounds", "1", "--repeats", "1"]
    assert main([*args, "--beside", program("other", result, fails)]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "| other |" in line)
    assert "failed: " in row and message in row


def test_ratios_compare_within_a_round():
    """Another program in round 2 slowed both; the ratio of all medians would say 1."""
    times = {(OURS, 1): 1.0, ("other", 1): 3.0, (OURS, 2): 3.0, ("other", 2): 6.0, ("other", 3): 1.0}
    rows = [{"task": "t", "contender": who, "round": turn, "seconds": [s]} for (who, turn), s in times.items()]
    assert ratio(rows, "t", "other") == "2.50 (2.00 to 3.00)"
    assert ratio(rows, "t", OURS) == "1" and ratio(rows, "t", "nobody") == "-"


def test_rows_of_another_run_are_joined(own, tmp_path, capsys):
    earlier = tmp_path / "gpu.json"
    earlier.write_text(json.dumps({"rows": [{"task": "panoptic", "contender": "published", "seconds": [4.0]}]}))
    assert main(["model", "--task", "panoptic", "--rounds", "1", "--repeats", "1", "--join", str(earlier)]) == 0
    assert "| panoptic | published (gpu.json) | 4.000 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--beside", "published"], "must be NAME=COMMAND"),
        (["--beside", "this=ls"], "Several contenders are called this"),
        (["--checkout", "nowhere"], "is no checkout of this project"),
        (["--join", "nowhere.json"], "nowhere.json"),
    ],
)
def test_mistakes_end_with_a_message(words, message, capsys):
    assert main(["model", "--task", "floor", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_finished_result_is_not_overwritten(own, tmp_path, capsys):
    finished = tmp_path / "result.json"
    finished.write_text("mine")
    assert main(["model", "--task", "panoptic", "--rounds", "1", "--repeats", "1", "--output", str(finished)]) == 2
    assert "exists already" in capsys.readouterr().err and finished.read_text() == "mine"


def test_threads_are_those_asked_for(own, tmp_path):
    output = tmp_path / "result.json"
    args = ["model", "--task", "panoptic", "--rounds", "1", "--repeats", "1", "--threads", "1", "--output", str(output)]
    assert main(args) == 0 and json.loads(output.read_text())["threads"] == 1


def test_other_programs_choose_how_their_threads_wait(own, tmp_path, monkeypatch):
    monkeypatch.setattr(waiting, "chosen", {"GOMP_SPINCOUNT": "10000"})
    monkeypatch.setenv("GOMP_SPINCOUNT", "10000")  # set by this package
    monkeypatch.setenv("KMP_BLOCKTIME", "7")  # set by the user
    script = "import json, os, sys; path = sys.argv[sys.argv.index('--output') + 1]; names = sorted(os.environ); "
    script += "json.dump({'seconds': [1.0], 'stages': dict.fromkeys(names, 1.0)}, open(path, 'w'))"
    path, output = tmp_path / "other.py", tmp_path / "result.json"
    path.write_text(script)
    args = ["model", "--task", "panoptic", "--rounds", "1", "--repeats", "1", "--output", str(output)]
    assert main([*args, "--beside", f"other={sys.executable} {path}"]) == 0
    (row,) = [row for row in json.loads(output.read_text())["rows"] if row["contender"] == "other"]
    assert "GOMP_SPINCOUNT" not in row["stages"] and "KMP_BLOCKTIME" in row["stages"]


def test_a_command_that_is_not_there(own, capsys):
    assert main(["model", "--task", "panoptic", "--rounds", "1", "--repeats", "1", "--beside", "x=/no/such"]) == 0
    assert "failed: /no/such: No such file or directory" in capsys.readouterr().out


def test_the_floor_of_this_machine(tmp_path, capsys):
    """The real workload, at its shortest."""
    output = tmp_path / "floor.json"
    args = ["model", "--task", "floor", "--rounds", "1", "--repeats", "1", "--threads", "1", "--output", str(output)]
    assert main(args) == 0
    (row,) = json.loads(output.read_text())["rows"]
    assert row["stages"].keys() == {"matrix product", "convolution, channels first", "convolution, channels last"}
    assert row["seconds"][0] >= sum(row["stages"].values()) * 0.99


def test_a_compiled_network_is_compiled_once_and_its_stages_are_timed(monkeypatch, tmp_path):
    compiled = record_graphs(monkeypatch)
    monkeypatch.setattr(workload, "PRETRAINING", "configs/mini/panoptic-pretrain.yaml")
    args = argparse.Namespace(task="network", root=REPOSITORY, height=64, width=64, dtype="float32", compile=True)
    stages = workload.Stages()
    run = workload.network(args, stages)
    for _ in range(3):
        run()
    torch._dynamo.reset()
    assert len(compiled) == 2, "backbone and pixel decoder, without graph breaks, at the first call only"
    assert {name: len(times) for name, times in stages.seconds.items()} == dict.fromkeys(STAGES, 3)
