"""Tools for metrics: print them for copying, compare them with expected ones, flatten them."""

import logging
import math
import sys
from collections.abc import Mapping

_logger = logging.getLogger(__name__)


def print_csv_format(results: Mapping) -> None:
    """Log each task's metrics, except of single classes (with "-"), as lines that begin with "copypaste: "."""
    assert isinstance(results, Mapping) or not results, f"Metrics come in a dict of tasks, not as {results}."
    for task, metrics in dict(results).items():
        if not isinstance(metrics, Mapping):
            _logger.info(f"copypaste: {task}={metrics}")
            continue
        overall = {name: f"{value:.4f}" for name, value in metrics.items() if "-" not in name}
        for line in (f"Task: {task}", ",".join(overall), ",".join(overall.values())):
            _logger.info(f"copypaste: {line}")


def verify_results(cfg, results: Mapping) -> bool:
    """Compare with ``TEST.EXPECTED_RESULTS`` (task, metric, value, tolerance); True, or exit status 1."""
    wrong = 0
    for task, metric, expected, tolerance in cfg.TEST.EXPECTED_RESULTS:
        value = results[task].get(metric)
        if value is None or not math.isclose(value, expected, rel_tol=0, abs_tol=tolerance):
            _logger.error(f"Verification: {task}/{metric} is {value}, expected {expected} +/- {tolerance}.")
            wrong += 1
    if wrong:
        sys.exit(1)
    if cfg.TEST.EXPECTED_RESULTS:
        _logger.info(f"Verification: all {len(cfg.TEST.EXPECTED_RESULTS)} expected metrics are met.")
    return True


def flatten_results_dict(results: Mapping) -> dict:
    """A flat dict from nested dicts, with keys joined by "/": ``{"segm": {"AP": 1}}`` -> ``{"segm/AP": 1}``."""
    flat: dict = {}
    for key, value in results.items():
        inner = flatten_results_dict(value) if isinstance(value, Mapping) else {None: value}
        flat |= {key if name is None else f"{key}/{name}": leaf for name, leaf in inner.items()}
    return flat
