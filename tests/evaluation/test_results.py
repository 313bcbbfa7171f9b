"""Means, and tables in the log: wrong here means wrong metrics, or metrics in another column."""

import logging
import math

import pytest

from PADing.evaluation.results import harmonic_mean, log_class_table, log_table, mean


@pytest.mark.parametrize("name", ["a|b", "two\nlines", "red \x1b[31m", "007", "1e5", "<b>", "nan"])
def test_names_stay_in_their_cell(caplog, name):
    with caplog.at_level(logging.INFO):
        log_class_table(f"about {name}", [[name, 50.0], ["wolf", math.nan]], ["class", "AP"], repeat=1)
    first, head, rule, row, other = caplog.messages[0].splitlines()
    cells = [cell.strip() for cell in row.replace("\\|", "/").strip("|").split("|")]
    assert len(cells) == 2 and cells[1] == "50.000" and "\x1b" not in row
    if name in ("007", "1e5"):
        assert cells[0] == name
    assert "nan" in other and rule.count(":") == 4


def test_numbers_have_three_decimals_and_counts_none(caplog):
    with caplog.at_level(logging.INFO):
        log_table("t", [["All", 1 / 3, 5], ["Harmonic mean", 2.0, ""]], ["", "PQ", "#categories"])
    assert [c.strip() for c in caplog.messages[0].splitlines()[3].strip("|").split("|")] == ["All", "0.333", "5"]


def test_harmonic_mean_by_hand():
    assert harmonic_mean(60, 30) == pytest.approx(40) and harmonic_mean(50, 50) == pytest.approx(50)
    assert harmonic_mean(0, 0) == 0 and harmonic_mean(0, 80) == 0
    assert math.isnan(harmonic_mean(math.nan, 50)) and math.isnan(harmonic_mean(50, math.nan))


def test_mean_by_hand():
    assert mean([1, 2, 6]) == 3 and mean([1, math.nan, 3]) == 2
    assert math.isnan(mean([])) and math.isnan(mean([math.nan])) and math.isnan(mean([1, math.nan], skip_nan=False))


def test_classes_stand_side_by_side_in_columns(caplog):
    with caplog.at_level(logging.INFO):
        log_class_table("t", [["a", 1], ["b", 2], ["c", 3]], ["class", "n"])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in caplog.messages[0].splitlines()[1:]]
    assert rows[0] == ["class", "n"] * 2 and rows[2:] == [["a", "1", "c", "3"], ["b", "2", "", ""]]
