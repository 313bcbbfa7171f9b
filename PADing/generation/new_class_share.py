"""Keeps new classes of a vocabulary from taking the features of the classes that the model knows.

Each new row is fitted by itself, with the advantage that training gives to unseen classes. So every row claims some
features of other classes, and a thousand rows claim nearly all. Here each row is lowered by a constant, which is found
on generated features x of the known classes. With ``a_j(x)``, the logit of new class j minus the log-sum-exp of the
known ones (its log odds), the row is lowered by

    max(0, m_j + t),    m_j = log mean_x exp a_j(x),

where ``t`` is the least number with ``mean_x P(some new class | x) <= share``. After ``m_j`` all new classes claim
these features equally, so none of them wins everywhere. ``t`` is at most ``log(N / share)`` for N new classes: the mean
of a probability is not above the mean of its odds, which is ``N exp(-t)``. A vocabulary that already takes no more than
``share`` keeps its rows bit by bit.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

SAMPLES, MOST, LEAST = 768, 32, 4  # generated features: about so many in all, and at most and least for each class
STEPS = 40  # of the bisection


def samples_per_class(classes: int) -> int:
    """How many features are generated for each of so many known classes."""
    return min(MOST, max(LEAST, SAMPLES // max(classes, 1)))


@torch.no_grad()
def lowered(rows: Tensor, known: Tensor, features: Tensor, share: float) -> Tensor:
    """The rows of new classes with lower biases.

    Bit-equal for any order of ``rows``.

    Args:
        rows: (N, d + 1) float, of the new classes, bias last.
        known: (K + 1, d + 1), of the known classes that are predicted, too, and of "no object".
        features: (n, d + 1), generated for these K classes, with a last column of ones; none: nothing to protect.
        share: of the probability on these features that all new classes together may have, above 0; 1: any.

    Returns:
        (N, d + 1) of the type of ``rows``.
    """
    if not len(features) or not len(rows) or share >= 1:
        return rows
    features = features.double()
    rest = (features @ known.double().T).logsumexp(1)
    # In an order of the rows' own: sums then have the same rounding in every order of the classes.
    values = rows.tolist()
    order = sorted(range(len(rows)), key=values.__getitem__)
    odds = rows[order].double() @ features.T - rest
    height = odds.logsumexp(1) - math.log(len(features))
    threshold = _threshold(odds, height, share)
    if threshold is None:
        return rows
    result = rows.clone()
    result[order, -1] -= (height + threshold).clamp(min=0).to(rows)
    return result


def _threshold(odds: Tensor, height: Tensor, share: float) -> float | None:
    """The ``t`` of log odds (N, n) with their ``m`` (N,); None if no row needs to be lowered."""

    def taken(t: float) -> float:
        return _taken(odds - (height + t).clamp(min=0)[:, None])

    low = -float(height.max())  # lowers nothing
    if taken(low) <= share:
        return None
    # First as if rows could be raised, too: then one sum over the classes serves all steps.
    total = (odds - height[:, None]).logsumexp(0)[None]
    high = _bisect(lambda t: _taken(total - t) > share, low, math.log(len(odds) / share))
    if high + float(height.min()) >= 0:
        return high
    return _bisect(lambda t: taken(t) > share, low, high)


def _taken(odds: Tensor) -> float:
    """The mean probability of all new classes together, from log odds (N, n) against the known ones."""
    return float(odds.logsumexp(0).sigmoid().mean())


def _bisect(too_low: Callable[[float], bool], low: float, high: float) -> float:
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if too_low(middle) else (low, middle)
    return high
