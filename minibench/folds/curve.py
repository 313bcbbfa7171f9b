"""The seen-unseen curve: what a bias on the logits of unseen classes trades between seen and unseen classes.

A bias b is added to the logits of unseen classes before the softmax ("calibrated stacking", Chao et al., ECCV 2016).
Each b gives a point (S, U): the metric on seen and on unseen classes. AUSUC is the area under the curve of these
points, in percent of the unit square: how well a method tells classes apart, whatever bias it happens to have.
"""

import math
from collections.abc import Iterable

import numpy as np

__all__ = ["POINTS", "area", "biases", "with_bias"]

# Biases of a curve, without 0 and both infinities.
POINTS = 11


def area(points: Iterable[tuple[float, float]], slack: float = 0.0) -> float:
    """The area under (seen, unseen) points in percent, in percent of the unit square.

    A point counts if no other is better on both axes. Straight lines join those that count; left of the first and right
    of the last, the curve is level and drops. Points with NaN are left out; NaN without any point. ``slack``: by how
    much a point's unseen metric must be above that of the points with better seen ones, unless it is 0.
    """
    known = [(s, u) for s, u in points if not (math.isnan(s) or math.isnan(u))]
    if not known:
        return math.nan
    front: list[tuple[float, float]] = []
    for seen, unseen in sorted(known, key=lambda point: (-point[0], -point[1])):
        if not front or unseen > front[-1][1] + (slack if unseen else 0.0):
            front.append((seen, unseen))
    total = front[-1][0] * front[-1][1]  # left of the point with the best unseen metric
    for (right, low), (left, high) in zip(front, front[1:], strict=False):
        total += (right - left) * (low + high) / 2
    return total / 100


def biases(logits: np.ndarray, unseen: np.ndarray, points: int = POINTS) -> np.ndarray:
    """The biases of a curve: both infinities, 0, and quantiles of those at which a query changes its side.

    Quantiles make the curve independent of the scale of logits, which differs between methods.

    Args:
        logits: (n, K + 1) of queries that matter, "no object" last.
        unseen: (K,) bool.
        points: number of quantiles.

    Returns:
        ascending, without repetition.
    """
    fixed = [-math.inf, 0.0, math.inf]
    if not len(logits) or unseen.all() or not unseen.any() or points < 1:
        return np.array(fixed)
    best = logits[:, :-1][:, unseen].max(1)
    other = np.maximum(logits[:, :-1][:, ~unseen].max(1), logits[:, -1])
    middles = (np.arange(points) + 0.5) / points
    return np.unique([*fixed, *np.quantile((other - best).astype(np.float64), middles)])


def with_bias(logits: np.ndarray, unseen: np.ndarray, bias: float) -> np.ndarray:
    """``logits`` (..., K + 1) with a bias on unseen classes (K,) bool; infinite: without the other side's classes."""
    result = logits.copy()
    if math.isinf(bias):
        gone = unseen if bias < 0 else ~unseen
        result[..., :-1][..., gone] = -np.inf
    else:
        result[..., :-1][..., unseen] += np.asarray(bias, dtype=logits.dtype)
    return result
