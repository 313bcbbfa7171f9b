"""Means, harmonic means and tables of metrics."""

import logging
import math
import re
from collections.abc import Iterable, Sequence

from tabulate import tabulate

logger = logging.getLogger(__name__)


def mean(values: Iterable[float], skip_nan: bool = True) -> float:
    """Arithmetic mean; NaN if there is no value, or if a value is NaN and ``skip_nan`` is False."""
    values = [float(v) for v in values if not (skip_nan and math.isnan(v))]
    return math.fsum(values) / len(values) if values else math.nan


def harmonic_mean(seen: float, unseen: float) -> float:
    """``2 s u / (s + u)``, the main metric of generalized zero-shot learning; 0 if both are 0, NaN if one is NaN."""
    total = seen + unseen
    return 2.0 * seen * unseen / total if total != 0 else 0.0


def log_table(title: str, rows: Sequence[Sequence], headers: Sequence[str]) -> None:
    """Log a table with pipes and three decimals; special characters in class names do not break it."""
    rows, headers = [[_cell(value) for value in row] for row in rows], [_cell(text) for text in headers]
    # Numbers are formatted already; parsing would log a class called "007" as 7.000.
    table = tabulate(rows, headers=headers, tablefmt="pipe", stralign="center", disable_numparse=True)
    logger.info("%s:\n%s", _cell(title), table)


def _cell(value: str | float) -> str:
    if not isinstance(value, str):
        return f"{value:.3f}" if isinstance(value, float) else str(value)
    return re.sub(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+", " ", value).replace("|", "\\|")


def log_class_table(title: str, rows: Sequence[Sequence], headers: Sequence[str], repeat: int = 2) -> None:
    """Log one row per class, ``repeat`` classes side by side."""
    length = -(-len(rows) // repeat)
    blank = [""] * len(headers)
    blocks = [list(rows[i * length : (i + 1) * length]) for i in range(repeat)]
    wide = [[cell for block in blocks for cell in (block[i] if i < len(block) else blank)] for i in range(length)]
    log_table(title, wide, list(headers) * repeat)
