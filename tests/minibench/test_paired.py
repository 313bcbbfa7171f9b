"""A verdict must be wrong as rarely as it says: tests against other formulas, and on simulated benchmarks."""

import numpy as np
import pytest
from scipy import stats

from minibench.paired import (
    BETTER,
    EQUIVALENT,
    MARGIN,
    UNDECIDED,
    WORSE,
    detectable_difference,
    holm,
    judge,
    paired_test,
)


def verdicts(tests) -> list[str]:
    return [found.verdict for found in judge(tests)]


# Harmonic means of PQ of two methods in six seeds.
FIRST = np.array([20.8, 42.7, 40.5, 28.2, 25.6, 45.0])
SECOND = np.array([40.0, 49.5, 47.1, 36.3, 38.8, 45.9])


def test_it_is_the_paired_test_of_both_columns():
    found, expected = paired_test(list(FIRST - SECOND)), stats.ttest_rel(FIRST, SECOND)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    # By hand: t = mean / (sd / sqrt n), and 2.5706 is the 97.5 % point of t with five degrees of freedom.
    half = 2.570582 * found.sd / 6**0.5
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), rel=1e-6)


def test_equivalence_is_the_interval_of_twice_the_level_within_the_margin():
    """The textbook's other form of two one-sided tests: the 90 % interval lies within the margin just if p < 0.05."""
    rng = np.random.default_rng(0)
    outcomes = []
    for scale in np.linspace(0.5, 6, 200):
        differences = rng.normal(0.5, scale, size=5)
        low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.9)
        inside = -MARGIN < low and high < MARGIN
        assert (paired_test(list(differences)).p_equivalent < 0.05) == inside
        outcomes.append(inside)
    assert 20 < sum(outcomes) < 180, "both outcomes occur"


@pytest.mark.parametrize("n", [3, 6, 9])
def test_the_detectable_difference_is_found_in_four_of_five_simulated_benchmarks(n):
    rng, sd, count = np.random.default_rng(n), 6.3, 40_000
    effect = detectable_difference(sd, n)
    p = stats.ttest_1samp(rng.normal(effect, sd, size=(count, n)), 0.0, axis=1).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=4 * (0.16 / count) ** 0.5)


def test_version_one_could_detect_twenty_points():
    """Three seeds whose differences in PQ have a standard deviation of 6.2 points."""
    assert detectable_difference(6.15, 3) == pytest.approx(20.1, abs=0.1)
    assert detectable_difference(6.15, 6) < 9 < detectable_difference(6.15, 5)


def test_holm_by_hand():
    # 4 x 0.01, 3 x 0.013, which is less than the one before, 2 x 0.03, 1 x 0.2.
    assert holm([0.03, 0.2, 0.01, 0.013]) == pytest.approx([0.06, 0.2, 0.04, 0.04])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


def _family(means, sd, n, rng) -> list[str]:
    """Verdicts on one simulated benchmark. Methods share the seeds' difficulty, so their differences are correlated."""
    shared = rng.normal(0, 0.5 * sd, size=n)
    return verdicts([paired_test(list(rng.normal(mean, sd, size=n) + shared)) for mean in means])


def test_the_family_raises_few_false_alarms():
    """Twelve comparisons without any difference: at most 5 % of the benchmarks may call one better or worse."""
    rng, count = np.random.default_rng(1), 800
    alarms = sum(bool({BETTER, WORSE} & set(_family([0.0] * 12, 5.0, 6, rng))) for _ in range(count))
    assert 0.005 < alarms / count < 0.05 + 3 * (0.05 * 0.95 / count) ** 0.5


def test_the_rule_of_before_raised_many():
    """The mean beyond one standard deviation, of three seeds without any difference: 22 % of the comparisons."""
    d = np.random.default_rng(2).normal(size=(20_000, 3))
    alarms = abs(d.mean(axis=1)) > d.std(axis=1, ddof=1)
    assert alarms.mean() == pytest.approx(0.225, abs=0.01)


def test_differences_on_the_margin_are_seldom_called_equivalent():
    rng, count = np.random.default_rng(3), 800
    alarms = sum(EQUIVALENT in _family([MARGIN, -MARGIN] * 4, 1.0, 6, rng) for _ in range(count))
    assert alarms / count < 0.05 + 3 * (0.05 * 0.95 / count) ** 0.5


def test_large_effects_and_true_equivalence_are_found_beside_each_other():
    rng = np.random.default_rng(4)
    found = [_family([20.0, -20.0, 0.0, 0.0], 0.8, 6, rng) for _ in range(50)]
    right = sum(f == [BETTER, WORSE, EQUIVALENT, EQUIVALENT] for f in found)
    assert right > 40


def test_a_tiny_difference_is_equivalent_although_it_is_no_chance():
    assert verdicts([paired_test([0.10, 0.12, 0.11, 0.09])]) == [EQUIVALENT]


def test_one_unit_decides_nothing_and_takes_no_part_in_the_correction():
    clear = paired_test([19.0, 20.0, 21.0])
    assert paired_test([30.0]) is None and paired_test([]) is None
    assert verdicts([None, clear, None]) == [UNDECIDED, BETTER, UNDECIDED]


def test_equal_differences_are_judged_by_the_limit():
    assert verdicts([paired_test([0.0, 0.0])]) == [EQUIVALENT]
    assert verdicts([paired_test([7.3] * 3)]) == [BETTER]
    assert verdicts([paired_test([-7.3] * 3)]) == [WORSE]
    assert verdicts([paired_test([MARGIN, MARGIN])]) == [BETTER]
