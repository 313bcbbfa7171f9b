"""IoU of semantic segmentation for several biases, from cached predictions."""

import numpy as np
import torch
from torch import Tensor

from minibench.folds.largest import largest_row
from minibench.folds.truth import Picture

__all__ = ["STEP", "SemanticCounts"]

# The curve counts every ``STEP``-th pixel in both directions; the metrics at bias 0 count all.
STEP = 4


class SemanticCounts:
    """Pixels by true and predicted class, for each bias; see ``PanopticCounts`` for the arguments.

    Args:
        size: (H, W) of the images.
        zero: the position of bias 0.
        step: see ``STEP``.
    """

    def __init__(
        self, biases: int, classes: int, columns: np.ndarray, size: tuple[int, int], zero: int, step: int = STEP
    ):
        self.columns, self.zero, self.step = torch.from_numpy(columns), zero, step
        self.classes = classes
        self.counts = np.zeros((biases, classes, classes), dtype=np.int64)  # predicted, true
        self.full = np.zeros((classes, classes), dtype=np.int64)
        every = np.arange(size[0] * size[1]).reshape(size)
        self.some = torch.from_numpy(every[::step, ::step].reshape(-1).copy())

    def add(self, image: Picture, probabilities: Tensor) -> None:
        """Count an image; ``probabilities``: (B, Q, K' + 1), "no object" last."""
        label_of = torch.tensor([-1, *image.labels.tolist()])
        soft, truth = image.soft[:, self.some], label_of[image.truth[self.some]]
        for number, weights in enumerate(probabilities[..., :-1]):
            self.counts[number] += self._confusion(weights, soft, truth)
        self.full += self._confusion(probabilities[self.zero, :, :-1], image.soft, label_of[image.truth])

    def _confusion(self, weights: Tensor, soft: Tensor, truth: Tensor) -> np.ndarray:
        known = truth >= 0
        predicted = self.columns[largest_row(weights.t() @ soft)[known]]
        pairs = torch.bincount(self.classes * predicted + truth[known], minlength=self.classes**2)
        return pairs.view(self.classes, self.classes).numpy()

    def by_class(self) -> np.ndarray:
        """IoU in percent at each bias, (B, K); NaN for a class without ground truth."""
        return np.stack([_iou(counts) for counts in self.counts])

    def at_zero(self) -> np.ndarray:
        """IoU in percent at bias 0, of all pixels: (K,)."""
        return _iou(self.full)


def _iou(counts: np.ndarray) -> np.ndarray:
    right, true, predicted = np.diagonal(counts).astype(float), counts.sum(0), counts.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(true > 0, 100 * right / (true + predicted - right), np.nan)
