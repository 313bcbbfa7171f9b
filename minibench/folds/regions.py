"""Accuracy of the classes of found segments: the part of a zero-shot method that is not segmentation.

A true segment is found if the mask of some query has an IoU above one half with it; that query's logits classify it.
"No object" does not compete. Accuracies are means over classes, in percent.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from minibench.folds.curve import area
from minibench.folds.truth import Truth, picture

__all__ = ["found_segments", "region_metrics"]


def found_segments(truth: Truth, masks: Tensor | np.ndarray) -> np.ndarray:
    """(R, 3) int64: image, query and class of each found segment; ``masks``: (N, Q, h, w) logits."""
    import torch

    rows = []
    for number, labels in enumerate(truth.labels):
        image = picture(torch.as_tensor(masks[number]), truth.maps[number], labels)
        iou = image.iou()
        for segment, label in enumerate(labels):
            query = int(iou[:, segment].argmax())
            if iou[query, segment] > 0.5:
                rows.append((number, query, int(label)))
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def region_metrics(logits: np.ndarray, labels: np.ndarray, unseen: np.ndarray) -> dict[str, float]:
    """Accuracies and their exact AUSUC.

    Args:
        logits: (R, K) of found segments, without "no object". labels: (R,) int64, columns of ``logits``.
        unseen: (K,) bool.

    Returns:
        ``acc_se``, ``acc_un``, ``acc_hm`` (all classes compete), ``acc_AUSUC``; ``acc_un_only``: accuracy on unseen
        classes if they alone compete; ``acc_se_only`` likewise.
    """
    points, (seen, among_seen), (new, among_new) = curve_points(logits, labels, unseen)
    total = seen + new
    return {
        "acc_se": seen,
        "acc_un": new,
        "acc_hm": 2 * seen * new / total if total else 0.0,
        "acc_AUSUC": area(points),
        "acc_se_only": among_seen,
        "acc_un_only": among_new,
    }


def curve_points(
    logits: np.ndarray, labels: np.ndarray, unseen: np.ndarray
) -> tuple[Sequence[tuple[float, float]], tuple[float, float], tuple[float, float]]:
    """All points of the curve; accuracy at bias 0 and among the own side's classes, of seen and of unseen classes.

    The prediction of a segment changes at one bias only: where the best unseen logit overtakes the best seen one. So
    one sorted list of these biases gives every point.
    """
    columns = np.flatnonzero(~unseen), np.flatnonzero(unseen)
    best = [side[logits[:, side].argmax(1)] if len(side) else np.full(len(logits), -1) for side in columns]
    rows = np.arange(len(logits))
    high = [logits[rows, b].astype(np.float64) if len(side) else None for b, side in zip(best, columns, strict=True)]
    if high[0] is None or high[1] is None or not len(logits):
        return [], (np.nan, np.nan), (np.nan, np.nan)
    change = high[0] - high[1]  # a segment goes to its best unseen class for a bias above
    counts = np.bincount(labels, minlength=len(unseen))
    of_side = [max(int((counts[side] > 0).sum()), 1) for side in columns]
    weight = [
        np.where((best[i] == labels), 100 / (counts[labels] * of_side[i]), 0.0) * (unseen[labels] == bool(i))
        for i in (0, 1)
    ]
    order = np.argsort(change, kind="stable")
    edges = np.append(np.flatnonzero(np.diff(change[order])) + 1, len(change))
    lost, won = (np.concatenate([[0.0], np.cumsum(weight[i][order])]) for i in (0, 1))
    places = np.concatenate([[0], edges])
    points = [(float(lost[-1] - lost[place]), float(won[place])) for place in places]
    at_zero = int(np.searchsorted(change[order], 0.0, side="left"))
    seen, new = (float(lost[-1] - lost[at_zero]), float(lost[-1])), (float(won[at_zero]), float(won[-1]))
    return points, seen, new
