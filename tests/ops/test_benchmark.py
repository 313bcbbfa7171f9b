"""The benchmark runs here: its table has a row for every backend, and the file holds the same rows."""

import enum
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from PADing.modeling.pixel_decoder.ops import benchmark, benchmark_peers

TOOL = Path(__file__).resolve().parents[2] / "tools" / "benchmark.py"


def test_table_and_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(benchmark.CASES, "small", (1, [(6, 8), (3, 4)], None))
    file = tmp_path / "rows.json"
    args = ["msda", "--device", "cpu", "--case", "small", "--dtype", "float32", "--rounds", "3", "--output", str(file)]
    assert benchmark.main(args) == 0
    rows = json.loads(file.read_text())
    found, problems = benchmark.contenders("cpu")
    assert {(row["backend"], row["pass"]) for row in rows} == {
        (name, p) for name in (*found, *problems) for p in ("fwd", "fwdbwd")
    }
    for row in rows:
        if row["backend"] in problems:
            assert row["error"] == problems[row["backend"]] and row["median_ms"] is None
        else:
            assert row["runs"] == 3 and 0 < row["min_ms"] <= row["median_ms"] and row["error"] is None
    assert all(row["ratio_to_pytorch"] == 1 for row in rows if row["backend"] == "pytorch")
    first, header, _, *lines = capsys.readouterr().out.splitlines()
    assert "CPU threads" in first and header.startswith("| case | dtype | pass | backend | median ms | min ms |")
    assert len(lines) == len(rows) and lines[0].startswith("| small | float32 | fwd | pytorch |")


def test_the_tool_is_the_same_command():
    """The place that the documentation of earlier versions names."""
    result = subprocess.run([sys.executable, TOOL, "msda", "--help"], capture_output=True, text=True)
    assert result.returncode == 0 and "--rounds" in result.stdout and "300_queries" in result.stdout


def test_a_peer_that_fails_has_a_row_with_its_error(monkeypatch):
    """Without the row, a reader takes a peer that was never measured for one that is slower."""
    found, _ = benchmark.contenders("cpu")
    calls = 0

    def works_at_first(inputs, *tensors):
        nonlocal calls
        calls += 1
        if calls > 4:
            raise AssertionError("out of |registers|\nand more")
        return found["pytorch"](inputs, *tensors)

    def broken(inputs, *tensors):
        raise NotImplementedError

    peers = {"pytorch": found["pytorch"], "late": works_at_first, "broken": broken}
    problems = {"absent": "ModuleNotFoundError: No module named 'absent'"}
    monkeypatch.setattr(benchmark, "contenders", lambda device: benchmark_peers.Contenders(peers, problems))
    monkeypatch.setitem(benchmark.CASES, "small", (1, [(6, 8), (3, 4)], None))
    rows = benchmark.measure("small", "float32", "cpu", 3, 1.0)
    errors = {(row["backend"], row["pass"]): row["error"] for row in rows}
    for passes in ("fwd", "fwdbwd"):
        assert errors["pytorch", passes] is None
        assert errors["late", passes] == "AssertionError: out of |registers|"
        assert errors["broken", passes] == "NotImplementedError"
        assert errors["absent", passes] == problems["absent"]
    assert benchmark._cell(errors["late", "fwd"]) == "AssertionError: out of /registers/"
    assert len(rows) == 8 and all(row["min_ms"] is None for row in rows if row["error"])


def test_deformops_is_asked_for_each_of_its_backends(monkeypatch):
    """The interface of deformops 3, as far as it is used: a registry that loads a backend and calls it."""
    calls = []

    class Registry(types.ModuleType):
        Backend = enum.Enum("Backend", ["CUDA", "TRITON"])

        class msda:  # noqa: N801 (its name there)
            def __new__(cls, value, shapes, starts, locations, weights, *, backend):
                calls.append((backend.name, value.dtype, locations.dtype, weights.dtype, shapes.tolist()))
                return value.new_zeros(1, 63, 256)

            @staticmethod
            def load(backend):
                if backend.name == "TRITON":
                    raise RuntimeError("no triton here")

    monkeypatch.setitem(sys.modules, "deformops.registry", Registry("registry"))
    monkeypatch.setitem(benchmark.CASES, "small", (1, [(6, 8), (3, 5)], None))
    inputs = benchmark.make_inputs("small", torch.bfloat16, "cpu")
    peers = benchmark_peers._peers("cuda")
    with pytest.raises(RuntimeError, match="no triton"):
        peers["deformops triton"]()
    peers["deformops cuda"]()(inputs, inputs.value, inputs.locations, inputs.weights)
    assert calls == [("CUDA", torch.bfloat16, torch.float32, torch.bfloat16, [[6, 8], [3, 5]])]
