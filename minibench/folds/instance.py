"""AP50 of instance masks for several biases, from cached predictions.

The numbers are those of ``PADing.evaluation.instance``: COCO's AP at the IoU threshold 0.5 with 101 recall points, for
images without crowd regions.
"""

import numpy as np
from torch import Tensor

from minibench.folds.truth import Picture
from PADing.evaluation.coco_matching import RECALL_POINTS
from PADing.meta_arch.results import best_pairs

__all__ = ["InstanceCounts"]

THRESHOLD = 0.5


class InstanceCounts:
    """The detections of all images with their scores, and whether they are right, by bias.

    Args:
        biases: number of biases, B. things: (K,) bool, of the truth's classes.
        columns: (K',) int64, the class of each logit.
        most: detections of an image, of all classes.
    """

    def __init__(self, biases: int, things: np.ndarray, columns: np.ndarray, most: int):
        self.things, self.columns, self.most = things, columns, most
        self.found: list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = [[] for _ in range(biases)]
        self.objects = np.zeros(len(things), dtype=np.int64)

    def add(self, image: Picture, probabilities: Tensor) -> None:
        """Match the detections of an image; ``probabilities``: (B, Q, K' + 1), "no object" last."""
        objects = np.flatnonzero(self.things[image.labels] & (image.areas > 0))
        labels = image.labels[objects]
        np.add.at(self.objects, labels, 1)
        # COCO's union counts void pixels: a mask on a distractor is wrong.
        iou = image.iou()[:, objects]
        for number, (scores, queries, classes) in enumerate(
            zip(*best_pairs(probabilities[..., :-1], self.most), strict=True)
        ):
            own, query = self.columns[classes.numpy()], queries.numpy()
            kept = self.things[own]
            own, query = own[kept], query[kept]
            score = scores.double().numpy()[kept] * image.certainty[query]
            order = np.argsort(-score, kind="stable")
            own, query, score = own[order], query[order], score[order]
            self.found[number].append((own, score, _matched(own, query, labels, iou)))

    def by_class(self) -> np.ndarray:
        """AP50 in percent, (B, K); NaN for stuff, and for things without an object."""
        result = np.full((len(self.found), len(self.things)), np.nan)
        for number, parts in enumerate(self.found):
            classes, scores, right = (np.concatenate(column) for column in zip(*parts, strict=True))
            for label in np.flatnonzero(self.objects):
                own = classes == label
                result[number, label] = 100 * _average_precision(scores[own], right[own], self.objects[label])
        return result


def _matched(classes: np.ndarray, queries: np.ndarray, labels: np.ndarray, iou: np.ndarray) -> np.ndarray:
    """Whether each detection, in descending order of score, takes a free object of its class: (n,) bool."""
    right = np.zeros(len(classes), dtype=bool)
    close = (classes[:, None] == labels) & (iou[queries] >= THRESHOLD)
    free = np.ones(len(labels), dtype=bool)
    for place in np.flatnonzero(close.any(1)):
        possible = np.flatnonzero(close[place] & free)
        if len(possible):
            overlaps = iou[queries[place], possible]
            free[possible[len(possible) - 1 - overlaps[::-1].argmax()]] = False
            right[place] = True
    return right


def _average_precision(scores: np.ndarray, right: np.ndarray, objects: int) -> float:
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(right[order])
    precision = found / np.arange(1, len(found) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(found / objects, RECALL_POINTS, side="left")
    reached = place < len(found)
    return float(precision[place[reached]].sum() / len(RECALL_POINTS))
