"""Differences between two methods, paired over folds: tests, verdicts, and the smallest difference that is found.

A unit is a fold: other unseen classes and another segmenter. Second-stage seeds of a fold share both, so their mean is
the fold's value.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minibench.folds.scores import ausuc_key
from minibench.methods import INSTANCE, PANOPTIC, Task
from minibench.paired import Judgement, PairedTest, judge, paired_test

__all__ = ["EQUAL", "Difference", "by_fold", "compare", "detectable", "seed_noise"]

Results = Mapping[str, Any]  # the content of results.json
# Of the second's mean: a smaller difference counts as equal. AUSUC is small, so 3 points, as in version 1, is coarse.
EQUAL = 0.1


@dataclass(frozen=True)
class Difference:
    """``upper`` minus ``lower``, by fold, in points of the AUSUC of ``task``; ``margin``: what counts as equal."""

    upper: str
    lower: str
    claim: str
    task: Task
    values: Mapping[int, float]
    margin: float
    test: PairedTest | None
    found: Judgement


def by_fold(results: Results, method: str, task: str, metric: str) -> dict[int, float]:
    """Fold -> mean of a metric over second-stage seeds; folds without a number are left out."""
    found: dict[int, list[float]] = {}
    for row in results["rows"]:
        value = row["results"].get(task, {}).get(metric)
        if row["method"] == method and isinstance(value, (int, float)) and math.isfinite(value):
            found.setdefault(row["fold"], []).append(float(value))
    return {fold: statistics.fmean(values) for fold, values in sorted(found.items())}


def compare(results: Results) -> list[Difference]:
    """All comparisons that the methods declare (``expected_above``, ``ablates``, ``extends``): one family of tests."""
    methods = {method["name"]: method for method in results["methods"]}
    pairs: dict[tuple[str, str], str] = {}
    for name, method in methods.items():
        for other, words in (method.get("expected_above") or {}).items():
            pairs.setdefault((name, other), f"{method['title']} is better than {words}")
        if full := method.get("ablates"):
            part = method.get("removes") or "the part"
            pairs.setdefault((full, name), f"{methods.get(full, {}).get('title', full)} is better with {part}")
        if full := method.get("extends"):
            pairs.setdefault((name, full), f"{method['title']} is better than {full}")
        if (
            method.get("role") == "baseline"
            and name != "pading"
            and "pading" in methods
            and method["task"] == "panoptic"
        ):
            pairs.setdefault(("pading", name), f"PADing is better than {method['title']}")
    found = []
    for (upper, lower), claim in pairs.items():
        if upper in methods and lower in methods:
            instance = "instance" in (methods[upper]["task"], methods[lower]["task"])
            task = INSTANCE if instance else PANOPTIC
            a, b = (by_fold(results, name, task.key, ausuc_key(task)) for name in (upper, lower))
            values = {fold: a[fold] - b[fold] for fold in sorted(a.keys() & b.keys())}
            if values:
                margin = EQUAL * abs(statistics.fmean(b[fold] for fold in values))
                found.append((upper, lower, claim, task, values, margin, paired_test(list(values.values()), margin)))
    judged = judge([test for *_, test in found])
    return [Difference(*parts, judgement) for parts, judgement in zip(found, judged, strict=True)]


def detectable(differences: Sequence[Difference]) -> tuple[float, float] | None:
    """The smallest detectable difference (80 % power, uncorrected): median and largest; None with one fold."""
    values = [one.test.detectable for one in differences if one.test is not None]
    return (statistics.median(values), max(values)) if values else None


def seed_noise(results: Results, task: Task = PANOPTIC) -> float | None:
    """Standard deviation of the AUSUC over second-stage seeds within a fold, pooled; None without two seeds."""
    groups: dict[tuple[str, int], list[float]] = {}
    for row in results["rows"]:
        value = row["results"].get(task.key, {}).get(ausuc_key(task))
        if isinstance(value, (int, float)) and math.isfinite(value):
            groups.setdefault((row["method"], row["fold"]), []).append(value)
    variances = [(statistics.variance(values), len(values) - 1) for values in groups.values() if len(values) > 1]
    freedom = sum(n for _, n in variances)
    return math.sqrt(sum(v * n for v, n in variances) / freedom) if freedom else None
