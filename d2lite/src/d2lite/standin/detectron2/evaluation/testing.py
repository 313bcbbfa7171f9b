"""Printing, checking and flattening results."""

import logging
import math
import pprint
import sys
from collections.abc import Mapping

__all__ = ["flatten_results_dict", "print_csv_format", "verify_results"]


def print_csv_format(results):
    """Log the main metrics of every task in lines that can be pasted into a spreadsheet.

    Metrics with a "-" in their name, those of single classes, are left out.
    """
    assert isinstance(results, Mapping) or not len(results), results
    logger = logging.getLogger(__name__)
    for task, result in results.items():
        if isinstance(result, Mapping):
            metrics = {name: value for name, value in result.items() if "-" not in name}
            logger.info(f"copypaste: Task: {task}")
            logger.info("copypaste: " + ",".join(metrics))
            logger.info("copypaste: " + ",".join(f"{value:.4f}" for value in metrics.values()))
        else:
            logger.info(f"copypaste: {task}={result}")


def verify_results(cfg, results):
    """Compare with ``cfg.TEST.EXPECTED_RESULTS``, rows of (task, metric, expected value, tolerance).

    Returns:
        True when all agree or nothing is expected. Otherwise the process exits with status 1.
    """
    expected_results = cfg.TEST.EXPECTED_RESULTS
    if not len(expected_results):
        return True
    logger = logging.getLogger(__name__)
    ok = True
    for task, metric, expected, tolerance in expected_results:
        actual = results[task].get(metric, None)
        if actual is None or not math.isfinite(actual) or abs(actual - expected) > tolerance:
            ok = False
    if not ok:
        logger.error("Result verification failed!")
        logger.error("Expected Results: " + str(expected_results))
        logger.error("Actual Results: " + pprint.pformat(results))
        sys.exit(1)
    logger.info("Results verification passed.")
    return ok


def flatten_results_dict(results):
    """``{"a": {"b": 1}, "c": 2}`` becomes ``{"a/b": 1, "c": 2}``, at any depth."""
    flat = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}/{inner}": item for inner, item in flatten_results_dict(value).items()})
        else:
            flat[key] = value
    return flat
