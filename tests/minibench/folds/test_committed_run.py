"""The committed results of version 2 are those of the frozen data, and give the committed report."""

from pathlib import Path

import pytest

from minibench.folds.cause_report import cause_report
from minibench.folds.causes import all_rows, file_hash, read_causes, verdicts
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


@pytest.fixture(scope="module")
def causes():
    return read_json(FOLDER / "causes.json", "Results of the cause experiments")


def test_the_report_is_what_the_command_writes(results, causes):
    text = (FOLDER / "report.md").read_text(encoding="utf-8")
    assert report(results, causes) == text, f"make it again: {AGAIN}"


def test_the_experiments_are_the_declared_ones_on_the_same_run(results, causes):
    assert causes["declared"] == file_hash(), "the expectations were changed after the experiments"
    assert causes["folds"] == results["folds"] and causes["budget"] == results["budget"]
    assert {row["segmenter"] for row in causes["rows"] if "segmenter" in row} <= {
        row["segmenter"] for row in results["rows"] if row["segmenter"]
    }
    experiments = read_causes()
    rows = all_rows(experiments, causes, results)
    page = cause_report(experiments, verdicts(experiments, rows), rows, causes)
    assert page == (FOLDER / "causes.md").read_text(encoding="utf-8"), f"make it again: {AGAIN}"


def test_the_planted_effect_was_found_and_none_between_seeds(causes):
    planted, null = (one for one in verdicts(read_causes(), causes["rows"]) if one.experiment == "planted")
    assert planted.as_expected == "yes" and null.as_expected != "no"
