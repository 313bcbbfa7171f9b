"""The benchmark runs here: its table has a row for every backend, and the file holds the same rows."""

import json
import subprocess
import sys
from pathlib import Path

from PADing.modeling.pixel_decoder.ops import benchmark

TOOL = Path(__file__).resolve().parents[2] / "tools" / "benchmark.py"


def test_table_and_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(benchmark.CASES, "small", (1, [(6, 8), (3, 4)], None))
    file = tmp_path / "rows.json"
    args = ["msda", "--device", "cpu", "--case", "small", "--dtype", "float32", "--rounds", "3", "--output", str(file)]
    assert benchmark.main(args) == 0
    rows = json.loads(file.read_text())
    backends = set(benchmark.contenders("cpu"))
    assert {(row["backend"], row["pass"]) for row in rows} == {
        (name, p) for name in backends for p in ("fwd", "fwdbwd")
    }
    assert all(row["runs"] == 3 and 0 < row["min_ms"] <= row["median_ms"] for row in rows)
    assert all(row["ratio_to_pytorch"] == 1 for row in rows if row["backend"] == "pytorch")
    first, header, _, *lines = capsys.readouterr().out.splitlines()
    assert "CPU threads" in first and header.startswith("| case | dtype | pass | backend | median ms | min ms |")
    assert len(lines) == len(rows) and lines[0].startswith("| small | float32 | fwd | pytorch |")


def test_the_tool_is_the_same_command():
    """The place that the documentation of earlier versions names."""
    result = subprocess.run([sys.executable, TOOL, "msda", "--help"], capture_output=True, text=True)
    assert result.returncode == 0 and "--rounds" in result.stdout and "300_queries" in result.stdout
