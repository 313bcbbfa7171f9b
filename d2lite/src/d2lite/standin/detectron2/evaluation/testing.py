"""What is done with figures: paste them, compare them with expected ones, flatten them."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterator, Mapping

__all__ = ["flatten_results_dict", "print_csv_format", "verify_results"]

_logger = logging.getLogger(__name__)


def print_csv_format(results: Mapping) -> None:
    """Log the figures of each task as comma separated lines that begin with "copypaste: ".

    A "-" in a metric's name marks the figure of a single class, which is left out.
    """
    assert isinstance(results, Mapping) or not results, f"Figures come in a dict of tasks, not as {results}."
    for task, figures in dict(results).items():
        if not isinstance(figures, Mapping):
            _logger.info(f"copypaste: {task}={figures}")
            continue
        overall = {metric: f"{figure:.4f}" for metric, figure in figures.items() if "-" not in metric}
        for line in (f"Task: {task}", ",".join(overall), ",".join(overall.values())):
            _logger.info(f"copypaste: {line}")


def verify_results(cfg, results: Mapping) -> bool:
    """Compare figures with ``TEST.EXPECTED_RESULTS`` and end the process with status 1 if one is off.

    Args:
        cfg: each row of its list is task, metric, expected figure, and how far off it may be.
        results: ``{task: {metric: figure}}``. KeyError if it lacks a task.

    Returns:
        True, also when nothing is expected.
    """
    wrong = 0
    for task, metric, expected, tolerance in cfg.TEST.EXPECTED_RESULTS:
        figure = results[task].get(metric)
        if figure is None or not math.isclose(figure, expected, rel_tol=0, abs_tol=tolerance):
            _logger.error(f"Verification: {task}/{metric} is {figure}, expected {expected} +/- {tolerance}.")
            wrong += 1
    if wrong:
        sys.exit(1)
    if cfg.TEST.EXPECTED_RESULTS:
        _logger.info(f"Verification: all {len(cfg.TEST.EXPECTED_RESULTS)} expected figures are met.")
    return True


def flatten_results_dict(results: Mapping) -> dict:
    """One level instead of nested dicts, with the keys of the way joined by "/": ``{"segm": {"AP": 1}}`` -> segm/AP."""
    return dict(_leaves(results))


def _leaves(tree: Mapping, way: str = "") -> Iterator[tuple[str, object]]:
    for key, branch in tree.items():
        if isinstance(branch, Mapping):
            yield from _leaves(branch, f"{way}{key}/")
        else:
            yield way + key, branch
