"""The committed results of version 2 are those of the frozen data, and give the committed report."""

from pathlib import Path

import pytest

from minibench.folds.report import report
from minibench.folds.submission import problems
from PADing.files import read_json

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "minibench" / "v2"
AGAIN = "python -m minibench report --output docs/minibench/v2 --to docs/minibench/v2"


@pytest.fixture(scope="module")
def results():
    return read_json(FOLDER / "results.json", "Results of the mini benchmark")


def test_they_can_be_compared_with_others(results):
    assert problems(results) == []
    assert results["world"] == "test" and results["budget"] == "standard"
    assert all(row["commit"] and not row["commit"].endswith("+") for row in results["rows"])


def test_the_report_is_what_the_command_writes(results):
    assert report(results) == (FOLDER / "report.md").read_text(encoding="utf-8"), f"make it again: {AGAIN}"
