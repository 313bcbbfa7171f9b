"""Evaluation of a model that also predicts classes which no image of the data set has: such predictions are wrong."""

from typing import Any

import torch
from detectron2.evaluation import DatasetEvaluator


class DistractorsAreWrong(DatasetEvaluator):
    """Hands predictions to an evaluator, in which classes from ``count`` on, the distractors, are answers of no use.

    Panoptic segments of a distractor become void, so the true segment is missed. Pixels with the label of a distractor
    count as predicted wrongly. Instances of a distractor are left out, after they have taken the place of others in the
    best ``TEST.DETECTIONS_PER_IMAGE``.

    Args:
        evaluator: for a data set of ``count`` classes.
        count: contiguous ids below it are classes of the data set.
    """

    def __init__(self, evaluator: DatasetEvaluator, count: int):
        self.evaluator, self.count = evaluator, count

    def reset(self) -> None:
        """Forget all images."""
        self.evaluator.reset()

    def __getattr__(self, name: str) -> Any:
        """Other attributes are the evaluator's, such as ``leave_out``, if it has that."""
        if name == "evaluator":  # not set yet, as in a copy that is being made
            raise AttributeError(name)
        return getattr(self.evaluator, name)

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take the distractors out of a batch's predictions."""
        self.evaluator.process(inputs, [self._without(output) for output in outputs])

    def evaluate(self) -> dict | None:
        """The evaluator's results."""
        return self.evaluator.evaluate()

    def _without(self, output: dict) -> dict:
        output = dict(output)
        if "instances" in output:
            output["instances"] = output["instances"][output["instances"].pred_classes < self.count]
        if "panoptic_seg" in output:
            ids, segments = output["panoptic_seg"]
            kept = [s for s in segments if s["category_id"] < self.count]
            void = torch.tensor([s["id"] for s in segments if s["category_id"] >= self.count], dtype=ids.dtype)
            output["panoptic_seg"] = ids.masked_fill(torch.isin(ids, void.to(ids.device)), 0), kept
        if "sem_seg" in output:
            output["sem_seg"] = _Scores(output["sem_seg"], self.count)
        return output


class _Scores:
    """Scores of which only the best class is asked; ``count`` stands for every distractor."""

    def __init__(self, scores: Any, count: int):
        self.scores, self.count = scores, count

    def __len__(self) -> int:
        return self.count

    def argmax(self, dim: int = 0) -> torch.Tensor:
        """The best class at each pixel."""
        return self.scores.argmax(dim).clamp(max=self.count)
