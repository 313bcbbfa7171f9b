"""All metrics of cached predictions, with their seen-unseen curves, in one pass over the masks."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from minibench.folds.curve import POINTS, area, biases, with_bias
from minibench.folds.instance import InstanceCounts
from minibench.folds.panoptic import PanopticCounts
from minibench.folds.regions import region_metrics
from minibench.folds.semantic import STEP, SemanticCounts
from minibench.folds.truth import Picture, Truth, picture
from minibench.methods import INSTANCE, PANOPTIC, SEMANTIC, Task
from PADing.evaluation.results import harmonic_mean

__all__ = ["REGION", "Rules", "Scorer", "ausuc_key", "score"]

REGION = "region"


def ausuc_key(task: Task) -> str:
    """The name of a task's AUSUC in results, such as ``PQ_AUSUC``."""
    return f"{task.metric}_AUSUC"


@dataclass(frozen=True)
class Rules:
    """How predictions become results.

    Attributes:
        confident, overlap: of panoptic results, see ``panoptic_map``. most: detections of an image.
        tasks: those that the model has.
        points, step: of the curves, see ``minibench.folds.curve`` and ``minibench.folds.semantic``.
    """

    confident: float
    overlap: float
    most: int
    tasks: tuple[Task, ...]
    points: int = POINTS
    step: int = STEP


class Scorer:
    """The metrics of one model.

    Args:
        truth: annotation of N images.
        logits: (N, Q, K' + 1) float32, "no object" last. names: of the K' classes, all of them in ``truth``.
        found: see ``found_segments``.
        rules: see there.
    """

    def __init__(self, truth: Truth, logits: np.ndarray, names: Sequence[str], found: np.ndarray, rules: Rules):
        self.truth, self.logits, self.rules = truth, logits, rules
        columns = np.array([truth.names.index(name) for name in names], dtype=np.int64)
        self.unseen, kinds = truth.unseen[columns], len(truth.names)
        known = found[np.isin(found[:, 2], columns)]
        own = logits[known[:, 0], known[:, 1]]
        place = np.full(kinds, -1)
        place[columns] = np.arange(len(columns))
        self.region = region_metrics(own[:, :-1], place[known[:, 2]], self.unseen)
        self.biases = biases(own, self.unseen, rules.points)
        number, self.zero = len(self.biases), int(np.flatnonzero(self.biases == 0)[0])
        self.panoptic = self.semantic = self.instance = None
        if PANOPTIC in rules.tasks:
            self.panoptic = PanopticCounts(number, kinds, truth.things, columns, rules.confident, rules.overlap)
        if SEMANTIC in rules.tasks:
            size = truth.maps.shape[1], truth.maps.shape[2]
            self.semantic = SemanticCounts(number, kinds, columns, size, self.zero, rules.step)
        if INSTANCE in rules.tasks:
            self.instance = InstanceCounts(number, truth.things, columns, rules.most)

    def add(self, number: int, image: Picture) -> None:
        """Count the image ``number``."""
        biased = np.stack([with_bias(self.logits[number], self.unseen, bias) for bias in self.biases])
        probabilities = torch.from_numpy(biased).softmax(-1)
        for part in (self.panoptic, self.semantic, self.instance):
            if part is not None:
                part.add(image, probabilities)

    def results(self) -> dict:
        """``results`` (task -> metric -> percent), ``classes`` (task -> class -> percent at bias 0), ``curves``."""
        found: dict[str, dict] = {"results": {}, "classes": {}, "curves": {}}
        for task, part in ((PANOPTIC, self.panoptic), (SEMANTIC, self.semantic), (INSTANCE, self.instance)):
            if part is None:
                continue
            table = part.by_class()
            exact = part.at_zero() if isinstance(part, SemanticCounts) else table[self.zero]
            curve = [self._means(values) for values in table]
            seen, unseen = self._means(exact)
            values = {task.seen: seen, task.unseen: unseen, task.harmonic: harmonic_mean(seen, unseen)}
            found["results"][task.key] = {**values, ausuc_key(task): area(curve)}
            found["classes"][task.key] = {
                name: round(float(value), 3)
                for name, value in zip(self.truth.names, exact, strict=True)
                if not math.isnan(value)
            }
            found["curves"][task.key] = [
                [_text(bias), round(s, 3), round(u, 3)] for bias, (s, u) in zip(self.biases, curve, strict=True)
            ]
        found["results"][REGION] = self.region
        return found

    def _means(self, values: np.ndarray) -> tuple[float, float]:
        """Means over seen and unseen classes, without NaN."""
        seen, unseen = values[~self.truth.unseen], values[self.truth.unseen]
        return _mean(seen), _mean(unseen)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _text(bias: float) -> float | str:
    return str(bias) if math.isinf(bias) else round(float(bias), 4)


@torch.no_grad()
def score(truth: Truth, masks: np.ndarray, scorers: Mapping[str, Scorer] | Iterable[Scorer]) -> None:
    """Count all images for several models that share the mask logits ``masks`` (N, Q, h, w)."""
    every = list(scorers.values() if isinstance(scorers, Mapping) else scorers)
    for number, labels in enumerate(truth.labels):
        image = picture(torch.from_numpy(masks[number]), truth.maps[number], labels)
        for scorer in every:
            scorer.add(number, image)
