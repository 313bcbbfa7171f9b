"""If these fail, the report finds differences that are not there, or hides how little it can find."""

import numpy as np
import pytest

from minibench.folds.differences import by_fold, compare, detectable, seed_noise
from minibench.folds.report import report
from minibench.paired import BETTER, UNDECIDED

METHODS = [
    {"name": "pading", "title": "PADing", "task": "panoptic", "role": "main", "limit": False, "expected_above": {}},
    {"name": "stacking", "title": "Stacking", "task": "panoptic", "role": "baseline", "limit": False},
    {
        "name": "no_x",
        "title": "PADing without x",
        "task": "panoptic",
        "ablates": "pading",
        "removes": "x",
        "limit": False,
    },
    {"name": "oracle_probe", "title": "Probe", "task": "panoptic", "role": "", "limit": True},
]


def _results(effects: dict[str, float], folds: int = 6, seeds: int = 2, noise: float = 1.0) -> dict:
    draws = np.random.default_rng(7)
    rows = []
    for fold in range(1, folds + 1):
        base = 20 + 5 * draws.normal()
        for method in METHODS:
            for seed in range(1, seeds + 1):
                value = base + effects.get(method["name"], 0.0) + noise * draws.normal()
                values = {"PQ_AUSUC": value, "PQ_hm": 2 * value, "PQ_un": value}
                rows.append({
                    "method": method["name"], "fold": fold, "seed": seed, "processor_seconds": 36.0,
                    "results": {"panoptic_seg": values, "region": {"acc_AUSUC": None}},
                })  # fmt: skip
    return {
        "world": "test", "track": "clip", "folds": list(range(1, folds + 1)), "seeds": list(range(1, seeds + 1)),
        "trainings": [{"name": "a", "seconds": 1800.0, "threads": 2}], "methods": METHODS, "rows": rows,
    }  # fmt: skip


def test_seeds_of_a_fold_are_one_value():
    results = _results({}, folds=2)
    values = by_fold(results, "pading", "panoptic_seg", "PQ_AUSUC")
    own = [r["results"]["panoptic_seg"]["PQ_AUSUC"] for r in results["rows"] if r["method"] == "pading"]
    assert values == {1: pytest.approx(np.mean(own[:2])), 2: pytest.approx(np.mean(own[2:]))}
    assert by_fold(results, "pading", "region", "acc_AUSUC") == {}


def test_a_planted_effect_is_found_and_none_is_invented():
    found = {(one.upper, one.lower): one for one in compare(_results({"pading": 7.0, "stacking": 0.0, "no_x": 7.0}))}
    assert set(found) == {("pading", "stacking"), ("pading", "no_x")}
    assert found["pading", "stacking"].found.verdict == BETTER
    assert found["pading", "no_x"].found.verdict in (UNDECIDED, "equivalent")
    median, largest = detectable(list(found.values()))
    assert 0.5 < median <= largest < 3  # folds differ by 5 points, but methods of one fold by 1


def test_one_fold_decides_nothing_and_the_report_says_so():
    results = _results({"pading": 50.0}, folds=1)
    assert all(one.found.verdict == UNDECIDED for one in compare(results)) and detectable(compare(results)) is None
    text = report(results)
    assert "its numbers decide nothing" in text and "a paired test over" not in text


def test_the_report_ranks_methods_and_keeps_limits_apart():
    text = report(_results({"pading": 3.0, "oracle_probe": 30.0}))
    rows = [line.split(" | ")[0].strip("| ") for line in text.splitlines() if line.startswith("|")]
    assert rows.index("PADing") < rows.index("Stacking") < rows.index("*Probe*")
    assert "with 80 % probability" in text and "1.00 h of processor time for warm start" in text
    assert "Better, as expected:** PADing over" in text and "Undecided:** PADing and PADing without x" not in text
    probe = next(line for line in text.splitlines() if line.startswith("| *Probe*"))
    assert " | 100 | " in probe


def test_limits_that_are_zero_after_a_short_training_are_left_out():
    results = _results({})
    label = {"name": "oracle_label", "title": "True names", "task": "panoptic", "role": "", "limit": True}
    results["methods"] = [*METHODS, label]
    own = [row for row in results["rows"] if row["method"] == "oracle_probe"]
    results["rows"] = results["rows"] + [{**row, "method": "oracle_label"} for row in own]
    assert "**Limits:** with true names the segmenters' masks reach" in report(results)
    for row in own:
        row["results"] = {"panoptic_seg": {"PQ_AUSUC": 0.0}}
    assert "**Limits:**" not in report(results) and "| *Probe* | 0.0 ± 0.0 | – |" in report(results)


def test_noise_of_seeds_is_that_within_folds():
    assert seed_noise(_results({}, folds=200, noise=1.5)) == pytest.approx(1.5, rel=0.1)
    assert seed_noise(_results({}, seeds=1)) is None
