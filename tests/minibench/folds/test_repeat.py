"""If these fail, a run that repeats the committed figures is called another one, or another one a repetition."""

import copy
import math

import numpy as np
import pytest
from scipy import stats

from minibench.folds.repeat import contradictions, main, repeats
from PADing.errors import UserError
from PADing.files import REPOSITORY, read_json, write_json

COMMITTED = REPOSITORY / "docs" / "minibench" / "v2" / "results.json"
METHODS = [
    {"name": "pading", "title": "PADing", "task": "panoptic", "expected_above": {"projection": "it"}, "limit": False},
    {"name": "projection", "title": "projection", "task": "panoptic", "limit": False},
]


def _results(folds=range(1, 7), seed=0, shift=0.0, noise=0.3):
    """Folds differ by 2 points, two runs of a fold by ``noise``."""
    draws, rows = np.random.default_rng(seed), []
    for fold in folds:
        for place, method in enumerate(METHODS):
            value = 20 + 2 * math.sin(7 * fold + place) + noise * draws.normal() + shift * (place == 0)
            results = {"panoptic_seg": {"PQ_AUSUC": value, "PQ_hm": 2 * value}}
            rows.append({"method": method["name"], "fold": fold, "seed": seed, "results": results})
    return {"world": "test", "track": "clip", "budget": "standard", "methods": METHODS, "rows": rows}


def test_a_repetition_lies_within_the_intervals_and_another_run_does_not():
    first = _results()
    own = [row["results"]["panoptic_seg"]["PQ_AUSUC"] for row in first["rows"] if row["method"] == "pading"]
    same = repeats(first, _results(seed=1))
    half = stats.t.ppf(0.975, 5) * np.std(own, ddof=1) * math.sqrt(7 / 6)
    assert (same[0].low, same[0].high) == pytest.approx((np.mean(own) - half, np.mean(own) + half))
    assert [one.inside for one in same] == [6] * 4 and same[0].test.low < 0 < same[0].test.high
    other = repeats(first, _results(seed=1, shift=9.0))
    assert other[0].inside == 0 and other[0].test.low > 7
    assert [one.inside for one in other if one.method == "projection"] == [6, 6]
    single = repeats(first, _results([3], seed=2))
    assert [one.inside for one in single] == [1] * 4 and single[0].test is None


def test_opposite_verdicts_are_named():
    first, second = _results(shift=5.0), _results(seed=1, shift=-5.0)
    assert contradictions(first, second) == ["pading - projection"]
    assert contradictions(first, _results(seed=1)) == contradictions(first, first) == []


def test_results_that_cannot_be_compared_are_refused(tmp_path, capsys):
    for key, value in (("track", "word"), ("budget", "smoke"), ("world", "tuning")):
        with pytest.raises(UserError, match=f"differ in `{key}`"):
            repeats(_results(), {**_results(), key: value})
    with pytest.raises(UserError, match="no method in common"):
        repeats(_results([1]), _results())
    (tmp_path / "a.json").write_text("[]")
    assert main([str(COMMITTED), str(tmp_path / "a.json")]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_one_fold_and_one_seed_of_the_committed_run(tmp_path, capsys):
    results = copy.deepcopy(read_json(COMMITTED, "Results"))
    results["rows"] = [row for row in results["rows"] if row["fold"] == 2 and row["seed"] in (0, 2)]
    results |= {"folds": [2], "seeds": [2]}
    write_json(tmp_path / "one.json", results)
    assert main([str(COMMITTED), str(tmp_path / "one.json")]) == 0
    out = capsys.readouterr().out
    assert "| pading | PQ AUSUC | " in out and "Comparisons with opposite verdicts: none." in out
