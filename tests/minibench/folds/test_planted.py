"""If these fail, the benchmark claims a power that it does not have."""

import numpy as np
import pytest

from minibench.folds.planted import simulate
from PADing.errors import UserError

MARGINS = {str(i): 1.0 for i in range(4)}


def _differences(sd: float, folds: int = 6, number: int = 4) -> dict[str, list[float]]:
    draws = np.random.default_rng(1)
    return {str(i): (30 * i + sd * draws.normal(size=folds)).tolist() for i in range(number)}


def test_a_large_effect_is_found_and_no_effect_is_not():
    found = simulate(_differences(sd=1.5), effect=7, rounds=60, margins=MARGINS)
    assert found.false_alarms <= 0.15
    assert min(found.found.values()) > 0.9


def test_an_effect_below_the_margin_is_equal_and_one_above_it_is_found():
    """Differences of small spread: 2 points are an effect where less than 1 counts as equal, and none where 3 does."""
    values = _differences(sd=0.2)
    assert min(simulate(values, effect=2, rounds=40, margins=MARGINS).found.values()) > 0.9
    assert max(simulate(values, effect=2, rounds=40, margins=dict.fromkeys(values, 3.0)).found.values()) < 0.1


def test_noise_hides_an_effect():
    found = simulate(_differences(sd=15), effect=7, rounds=60, margins=MARGINS)
    assert max(found.found.values()) < 0.5 and found.false_alarms <= 0.15


def test_one_fold_cannot_be_simulated():
    with pytest.raises(UserError, match="at least two folds"):
        simulate({"a": [3.0]}, 7, 10, {"a": 1.0})
    with pytest.raises(UserError, match="the same folds"):
        simulate({"a": [3.0, 1.0], "b": [1.0, 2.0, 3.0]}, 7, 10, {"a": 1.0, "b": 1.0})
