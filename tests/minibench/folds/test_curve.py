"""If these fail, AUSUC is not the area that the page defines, or depends on the scale of logits."""

import math

import numpy as np
import pytest

from minibench.folds.curve import area, biases, with_bias
from minibench.folds.regions import curve_points, region_metrics


def test_area_by_hand():
    # A trapezoid: from (80, 0) up to (60, 40), level to the left from (20, 60).
    points = [(80, 0), (60, 40), (20, 60), (0, 60)]
    by_hand = 20 * (0 + 40) / 2 + 40 * (40 + 60) / 2 + 20 * 60
    assert area(points) == pytest.approx(by_hand / 100)
    assert area([(100, 0), (100, 100), (0, 100)]) == 100
    assert area([(70, 0), (0, 0)]) == 0
    assert area([(50, 40)]) == pytest.approx(20)


def test_points_that_another_one_beats_do_not_count():
    better = [(80, 0), (60, 40), (0, 60)]
    assert area([*better, (50, 30), (60, 39), (59, 40)]) == pytest.approx(area(better))
    assert area([*better, (math.nan, 90), (90, math.nan)]) == pytest.approx(area(better))
    assert math.isnan(area([(math.nan, 1)])) and math.isnan(area([]))
    assert area(better[::-1]) == area(better)


def test_accuracies_by_hand():
    # Classes 0, 1 seen; 2, 3 unseen. Rows: class, then logits.
    table = [
        (0, [5, 1, 2, 0]),  # right until the bias exceeds 3
        (0, [1, 4, 0, 0]),  # never right
        (1, [0, 6, 5, 0]),  # right until 1
        (2, [4, 0, 3, 1]),  # right from 1 on
        (2, [2, 0, 1, 0]),  # right from 1 on
        (3, [0, 1, 5, 4]),  # never right
    ]
    labels, logits = np.array([row[0] for row in table]), np.array([row[1] for row in table], dtype=np.float32)
    unseen = np.array([False, False, True, True])
    found = region_metrics(logits, labels, unseen)
    assert found["acc_se"] == 75 and found["acc_un"] == 0 and found["acc_hm"] == 0
    assert found["acc_se_only"] == 75 and found["acc_un_only"] == 50
    # Just above 1 the seen class 1 is lost and the unseen class 2 is won; above 3 half of class 0 is lost.
    assert set(curve_points(logits, labels, unseen)[0]) == {(75, 0), (25, 50), (0, 50)}
    assert found["acc_AUSUC"] == pytest.approx((50 * 25 + 25 * 50) / 100)


def test_exact_accuracies_are_those_of_a_brute_force_sweep():
    draws = np.random.default_rng(3)
    unseen = np.array([False] * 5 + [True] * 3)
    labels = draws.integers(0, 8, size=300)
    logits = draws.normal(size=(300, 8)).astype(np.float32)
    logits[np.arange(300), labels] += 1.5
    points = curve_points(logits, labels, unseen)[0]
    brute = []
    for bias in np.linspace(-9, 9, 3001):
        right = (logits + bias * unseen).argmax(1) == labels
        by_class = np.array([right[labels == label].mean() for label in range(8)])
        brute.append((100 * by_class[~unseen].mean(), 100 * by_class[unseen].mean()))
    for seen, new in brute[::100]:
        assert min(abs(seen - s) + abs(new - u) for s, u in points) < 1e-9
    found = region_metrics(logits, labels, unseen)
    assert found["acc_AUSUC"] == pytest.approx(area(brute), abs=0.05)
    middle = brute[1500]
    assert (found["acc_se"], found["acc_un"]) == pytest.approx(middle)


def test_the_curve_does_not_depend_on_the_scale_of_logits():
    draws = np.random.default_rng(4)
    logits, unseen = draws.normal(size=(50, 7)), np.array([False] * 4 + [True] * 2)
    one, ten = (biases(scale * logits, unseen, 6) for scale in (1, 10))
    assert len(one) == 6 + 3 and one[0] == -math.inf and one[-1] == math.inf and 0 in one
    np.testing.assert_allclose(10 * one[1:-1], ten[1:-1], rtol=1e-6)


def test_a_method_without_one_side_has_no_curve():
    logits = np.zeros((3, 4))
    for unseen in (np.zeros(3, dtype=bool), np.ones(3, dtype=bool)):
        assert biases(logits, unseen).tolist() == [-math.inf, 0, math.inf]
        assert math.isnan(region_metrics(logits[:, :3], np.array([0, 1, 2]), unseen)["acc_AUSUC"])


def test_a_bias_changes_unseen_logits_alone():
    logits, unseen = np.arange(8, dtype=np.float32).reshape(2, 4), np.array([False, True, True])
    np.testing.assert_array_equal(with_bias(logits, unseen, 2.0), logits + np.array([0, 2, 2, 0]))
    assert np.isneginf(with_bias(logits, unseen, -math.inf)[:, 1:3]).all()
    assert np.isneginf(with_bias(logits, unseen, math.inf)[:, 0]).all()
    assert logits.max() == 7
