"""If these fail, the benchmark claims a power that it does not have."""

import numpy as np
import pytest

from minibench.folds.planted import simulate
from PADing.errors import UserError


def _differences(sd: float, folds: int = 6, number: int = 4) -> dict[str, list[float]]:
    draws = np.random.default_rng(1)
    return {str(i): (30 * i + sd * draws.normal(size=folds)).tolist() for i in range(number)}


def test_a_large_effect_is_found_and_no_effect_is_not():
    found = simulate(_differences(sd=1.5), effect=7, rounds=60)
    assert found.false_alarms <= 0.15
    assert min(found.found.values()) > 0.9


def test_noise_hides_an_effect():
    found = simulate(_differences(sd=15), effect=7, rounds=60)
    assert max(found.found.values()) < 0.5 and found.false_alarms <= 0.15


def test_one_fold_cannot_be_simulated():
    with pytest.raises(UserError, match="at least two folds"):
        simulate({"a": [3.0]}, 7, 10)
    with pytest.raises(UserError, match="the same folds"):
        simulate({"a": [3.0, 1.0], "b": [1.0, 2.0, 3.0]}, 7, 10)
