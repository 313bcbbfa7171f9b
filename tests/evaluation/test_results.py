"""Tables in the log; wrong here means metrics in another column, or a terminal that a class name controls."""

import logging
import math

import pytest

from PADing.evaluation.results import log_class_table, log_table


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
