"""Panoptic quality for several biases at once, from cached predictions.

The numbers are those of ``PADing.meta_arch.results.panoptic_map`` and ``PADing.evaluation.panoptic``, which make a map
and compare it; here the pixels of each image are counted once for each bias.
"""

import numpy as np
import torch
from torch import Tensor

from minibench.folds.largest import largest_row
from minibench.folds.truth import Picture

__all__ = ["PanopticCounts"]


class PanopticCounts:
    """True positives with their IoU, false positives and false negatives, by bias and class.

    Args:
        biases: number of biases, B. classes: K, as in the truth. things: (K,) bool.
        columns: (K',) int64, the class of each logit.
        confident, overlap: see ``panoptic_map``: least score of a query, least share of its mask that it keeps.
    """

    def __init__(
        self, biases: int, classes: int, things: np.ndarray, columns: np.ndarray, confident: float, overlap: float
    ):
        self.things, self.columns, self.confident, self.overlap = things, columns, confident, overlap
        # IoU, true positives, false positives, false negatives.
        self.counts = np.zeros((4, biases, classes))

    def add(self, image: Picture, probabilities: Tensor) -> None:
        """Count an image; ``probabilities``: (B, Q, K' + 1), "no object" last."""
        scores, labels = probabilities.max(-1)
        sure = (labels != probabilities.shape[2] - 1) & (scores > self.confident)
        for number in range(len(probabilities)):
            kept = sure[number].nonzero()[:, 0]
            table = np.zeros((0, len(image.labels) + 1))
            classes = np.zeros(0, dtype=np.int64)
            if len(kept):
                table, classes = self._segments(image, kept, scores[number, kept], labels[number, kept])
            self._count(number, image, table, classes)

    def _segments(self, image: Picture, kept: Tensor, scores: Tensor, labels: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The predicted segments: pixels in void and in each true segment (S, G + 1), and classes (S,)."""
        width = len(image.labels) + 1
        owner = largest_row(scores[:, None] * image.soft[kept])
        inside = image.inside[kept]
        place = (2 * owner + inside.gather(0, owner[None])[0]) * width + image.truth
        owned = torch.bincount(place, minlength=2 * len(kept) * width).view(len(kept), 2, width).double().numpy()
        left, whole = owned[:, 1], image.overlap[kept.numpy()].sum(1)
        assigned = owned.sum((1, 2))
        share = np.divide(assigned, whole, out=np.zeros_like(whole), where=whole > 0)
        stays = (left.sum(1) > 0) & (share >= self.overlap)
        table, classes = left[stays], self.columns[labels.numpy()[stays]]
        stuff = ~self.things[classes]
        merged = [table[~stuff]]
        own = np.unique(classes[stuff])
        merged += [table[classes == label].sum(0, keepdims=True) for label in own]
        return np.concatenate(merged), np.concatenate([classes[~stuff], own])

    def _count(self, number: int, image: Picture, table: np.ndarray, classes: np.ndarray) -> None:
        area, void, overlap = table.sum(1), table[:, 0], table[:, 1:]
        union = image.areas + (area - void)[:, None] - overlap
        same = classes[:, None] == image.labels
        iou = np.divide(overlap, union, out=np.zeros_like(overlap), where=same & (overlap > 0))
        predicted, true = np.nonzero(iou > 0.5)
        counts = self.counts[:, number]
        np.add.at(counts[0], image.labels[true], iou[predicted, true])
        np.add.at(counts[1], image.labels[true], 1)
        wrong = (2 * void <= area) & (area > 0)
        wrong[predicted] = False
        np.add.at(counts[2], classes[wrong], 1)
        missed = image.areas > 0
        missed[true] = False
        np.add.at(counts[3], image.labels[missed], 1)

    def by_class(self) -> np.ndarray:
        """PQ in percent, (B, K); 0 for a class that occurs neither in truth nor in predictions, as published."""
        iou, right, wrong, missed = self.counts
        weight = right + wrong / 2 + missed / 2
        return 100 * np.divide(iou, weight, out=np.zeros_like(iou), where=weight > 0)
