"""Trains second stages on cached features: the methods' own networks, losses and recipe, without a segmenter.

A method's model takes its inputs from two calls, ``match`` in training and ``segment`` in inference. Both are answered
from ``Features`` here. Everything else is the method's own code, as ``train_net.py`` runs it.

The classifier's weights are averaged over the second half of the training, for all methods alike: a mean over many
steps differs less from one second-stage seed to another than the last step does.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from minibench.folds.features import Features, frozen_model
from PADing.engine.loss_values import Diverged
from PADing.engine.recipes import build_recipe
from PADing.engine.trainer import Trainer
from PADing.generation.self_training import confident_labels

__all__ = ["predict", "train"]

BATCH = 250  # images at a time in inference


def train(
    cfg: CfgNode,
    features: Features,
    other: bool = False,
    first: nn.Linear | None = None,
    look: Callable[[Any, list[dict], int], None] | None = None,
) -> nn.Module:
    """Train the second stage of a config with ``SEED`` for ``SOLVER.MAX_ITER`` iterations.

    Args:
        cfg: see there. features: of the fold.
        other: also train on the images that show unseen classes, whose segments are not annotated (transductive).
        first: self-training: a first model's classifier, whose sure predictions of unseen classes label unmatched
            queries (``MODEL.MASK_FORMER.SELF_TRAINING``).
        look: called before each iteration with model, batch and iteration; it must draw no random numbers.

    Raises:
        Diverged: a loss became infinite or NaN.
    """
    seed_all_rng(cfg.SEED)
    model = frozen_model(cfg)
    recipe = build_recipe(cfg, model)
    scheduler = Trainer.build_lr_scheduler(cfg, next(iter(recipe.optimizers.values())))
    matches = _Matches(features, other)
    if first is not None:
        rule = cfg.MODEL.MASK_FORMER.SELF_TRAINING
        unseen: Any = model.classes.unseen  # type: ignore[union-attr]
        matches.relabel(first, unseen, rule.SCORE, rule.MAX_OVERLAP)
    model.match = matches  # type: ignore[method-assign, assignment]
    averaged = _Average(model.classifier_parameters())  # type: ignore[operator]
    model.train()
    iterations = cfg.SOLVER.MAX_ITER
    batches = _batches(matches.images, cfg.SOLVER.IMS_PER_BATCH, cfg.SEED)
    with EventStorage(0) as storage:
        for iteration in range(iterations):
            storage.iter = iteration
            batch = next(batches)
            if look is not None:
                look(model, batch, iteration)
            recipe.step(model, batch, 0.0)
            scheduler.step()
            if 2 * (iteration + 1) > iterations:
                averaged.add()
    averaged.apply()
    return model.eval()


@torch.no_grad()
def predict(model: nn.Module, cfg: CfgNode, features: Features) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class logits on the validation images, (M, Q, K + 1) float32, and the names of the K classes."""
    outputs = {
        "pred_embed": features.val_features,
        "pred_logits": features.val_logits,
        "pred_masks": features.val_masks,
    }
    tensors = {key: torch.from_numpy(value) for key, value in outputs.items()}
    model.segment = lambda part: {key: value[part] for key, value in tensors.items()}  # type: ignore[assignment]
    model.set_test_metadata(MetadataCatalog.get(cfg.DATASETS.TEST[0]))  # type: ignore[operator]
    number = len(features.val_features)
    parts = [slice(start, start + BATCH) for start in range(0, number, BATCH)]
    logits = np.concatenate([model.predict(part)[0].numpy() for part in parts])  # type: ignore[operator]
    if not np.isfinite(logits).all():
        raise Diverged("The trained classifier has logits that are infinite or NaN. Lower its learning rate.")
    return logits * np.float32(model.inverse_temperature), model.output_names()  # type: ignore[operator, arg-type]


class _Matches:
    """Stands in for ``FrozenSegmenter.match``: a batch is a list of {"place", "mirrored"}.

    Places after the fold's own images are those of the other images, which are never mirrored.
    """

    def __init__(self, features: Features, other: bool):
        parts = [(features.train_features, features.train_classes, features.train_covered)]
        if other:
            more = features.other_features, features.other_known, features.other_covered
            parts.append(tuple(np.stack([part, part], axis=1) for part in more))  # type: ignore[arg-type]
        joined = (torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True))
        self.features, self.classes, self.covered = joined
        self.given = self.classes
        self.images, self.unmatched = len(self.features), features.val_logits.shape[2] - 1

    @torch.no_grad()
    def relabel(self, first: nn.Linear, unseen: Tensor, score: float, max_overlap: float) -> None:
        """Give pseudo labels to unmatched queries, for the classifier step; see ``confident_labels``."""
        self.given = confident_labels(self.classes, first(self.features), self.covered, unseen, score, max_overlap)

    def __call__(self, batch: list[dict]) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        place = torch.tensor([sample["place"] for sample in batch])
        mirrored = torch.tensor([sample["mirrored"] for sample in batch])
        features, classes = self.features[place, mirrored], self.classes[place, mirrored]
        image, query = (classes != self.unmatched).nonzero(as_tuple=True)
        return features, self.given[place, mirrored], classes[image, query], (image, query)


def _batches(number: int, size: int, seed: int) -> Iterator[list[dict]]:
    """Endless batches: each pass over the images has its own order, and half of the images are mirrored."""
    draws, waiting = np.random.default_rng([21, seed]), list[int]()
    while True:
        while len(waiting) < size:
            waiting += draws.permutation(number).tolist()
        batch, waiting = waiting[:size], waiting[size:]
        flips = draws.integers(2, size=size).tolist()
        yield [{"place": place, "mirrored": flip} for place, flip in zip(batch, flips, strict=True)]


class _Average:
    """The mean of parameters over some iterations."""

    def __init__(self, parameters: list[nn.Parameter]):
        self.parameters, self.number = parameters, 0
        self.sums = [torch.zeros_like(parameter, dtype=torch.float64) for parameter in parameters]

    @torch.no_grad()
    def add(self) -> None:
        """Count the present values."""
        self.number += 1
        for total, parameter in zip(self.sums, self.parameters, strict=True):
            total += parameter

    @torch.no_grad()
    def apply(self) -> None:
        """Set the parameters to their mean."""
        for total, parameter in zip(self.sums, self.parameters, strict=True):
            if self.number:
                parameter.copy_(total / self.number)
