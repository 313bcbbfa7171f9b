"""Cells and tables of the reports of version 2 in Markdown."""

import statistics
from collections.abc import Sequence

__all__ = ["MISSING", "spread", "table"]

MISSING = "–"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a line for each row; a ``|`` in a cell, such as in a method's title, does not end it."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation; the mean alone of one value."""
    if not values:
        return MISSING
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean
