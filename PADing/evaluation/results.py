"""What all evaluators do with their metrics: means, harmonic means, tables."""

import logging
import math
import re
from collections.abc import Iterable, Sequence

from tabulate import tabulate

logger = logging.getLogger(__name__)


def mean(values: Iterable[float], skip_nan: bool = True) -> float:
    """Arithmetic mean; NaN when nothing is left, or when a value is NaN and ``skip_nan`` is false."""
    values = [float(v) for v in values if not (skip_nan and math.isnan(v))]
    return math.fsum(values) / len(values) if values else math.nan


def harmonic_mean(seen: float, unseen: float) -> float:
    """``2 s u / (s + u)``: the measure of generalized zero-shot learning. 0 when both are 0; NaN stays NaN."""
    total = seen + unseen
    return 2.0 * seen * unseen / total if total != 0 else 0.0


def log_table(title: str, rows: Sequence[Sequence], headers: Sequence[str]) -> None:
    """Log one table with pipes and three decimals. No character of a class name can leave its cell."""
    rows, headers = [[_cell(value) for value in row] for row in rows], [_cell(text) for text in headers]
    # Numbers are text by now, or a class called "007" would be logged as 7.000.
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
