"""Paired tests of differences between two methods, and verdicts with Holm's correction over a family of them.

The differences of a comparison are one number for each *unit*: a seed with its own data and pretraining, or a fold of
unseen classes. Units must be independent of each other; runs that share one are averaged before.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special

BETTER, WORSE, EQUIVALENT, UNDECIDED, NOT_RUN = "better", "worse", "equivalent", "undecided", "not run"
LEVEL = 0.05
POWER = 0.8
# Points of a metric in percent. A smaller mean difference is too small to choose a method by: one method trained twice
# on the same pretraining differs by as much (docs/minibench.md).
MARGIN = 3.0


@dataclass(frozen=True)
class PairedTest:
    """Student's tests of n paired differences, not corrected for the number of comparisons.

    Attributes:
        n: number of units, at least 2. mean, sd: of the differences, in points; ``sd`` divides by n - 1.
        low, high: confidence interval of the mean at ``1 - LEVEL``.
        p: of the two-sided test of no difference.
        p_equivalent: of the two one-sided tests of a mean difference of at least ``MARGIN`` in either direction.
        detectable: the mean difference that the two-sided test finds with a probability of ``POWER``, in points.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float
    p: float
    p_equivalent: float
    detectable: float


def paired_test(differences: Sequence[float], margin: float = MARGIN) -> PairedTest | None:
    """The tests of these differences; None with fewer than two, which have no spread.

    Equal differences have no spread either: the limit of the tests for a vanishing spread is taken.
    """
    n = len(differences)
    if n < 2:
        return None
    mean, sd = statistics.fmean(differences), statistics.stdev(differences)
    if sd <= 1e-9 * max(1.0, abs(mean)):  # rounding errors of equal differences
        return PairedTest(n, mean, 0.0, mean, mean, float(mean == 0), float(abs(mean) >= margin), 0.0)
    error, freedom = sd / math.sqrt(n), n - 1
    half = _quantile(1 - LEVEL / 2, freedom) * error
    p = 2 * special.stdtr(freedom, -abs(mean) / error)
    # Of the two one-sided tests, the one at the nearer bound decides.
    p_equivalent = special.stdtr(freedom, (abs(mean) - margin) / error)
    detectable = detectable_difference(sd, n)
    return PairedTest(n, mean, sd, mean - half, mean + half, float(p), float(p_equivalent), detectable)


def detectable_difference(sd: float, n: int, power: float = POWER, level: float = LEVEL) -> float:
    """The smallest mean of n paired differences of this standard deviation that a test finds with this power."""
    critical = _quantile(1 - level / 2, n - 1)
    # The t distribution's non-centrality with ``1 - power`` below the critical value; the other tail is below 1e-4.
    return float(special.nctdtrinc(n - 1, 1 - power, critical)) * sd / math.sqrt(n)


def _quantile(probability: float, freedom: int) -> float:
    """Of Student's t distribution."""
    return float(special.stdtrit(freedom, probability))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected by Holm's step-down method: below a level, with at most this probability of any false one."""
    ranked = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(ranked):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


@dataclass(frozen=True)
class Judgement:
    """The verdict on one comparison of a family, and the p values of its test after Holm's correction."""

    verdict: str
    p: float | None = None
    p_equivalent: float | None = None


def judge(tests: Sequence[PairedTest | None], level: float = LEVEL) -> list[Judgement]:
    """Whether the first method of each comparison of a family is better than the second; None: no test was possible.

    ``EQUIVALENT``: the mean difference is within the margin, even if it is not zero. ``BETTER``, ``WORSE``: the mean
    difference is not zero. ``UNDECIDED``: neither is shown. ``EQUIVALENT`` and the other two are corrected separately:
    the probability of any false ``BETTER`` or ``WORSE`` is at most ``level``, and so is that of any false
    ``EQUIVALENT``.
    """
    known = [test for test in tests if test is not None]
    corrected = zip(holm([test.p for test in known]), holm([test.p_equivalent for test in known]), strict=True)
    found = (Judgement(_verdict(test, *ps, level), *ps) for test, ps in zip(known, corrected, strict=True))
    return [Judgement(UNDECIDED) if test is None else next(found) for test in tests]


def _verdict(test: PairedTest, p: float, p_equivalent: float, level: float) -> str:
    if p_equivalent < level:
        return EQUIVALENT
    if p < level:
        return BETTER if test.mean > 0 else WORSE
    return UNDECIDED
