"""Trains second stages on cached features: the methods' own networks, losses and recipe, without a segmenter.

A method's model takes its inputs from two calls, ``match`` in training and ``segment`` in inference. Both are answered
from ``Features`` here. Everything else is the method's own code, as ``train_net.py`` runs it.

The classifier's weights are averaged over the second half of the training, for all methods alike: a mean over many
steps differs less from one second-stage seed to another than the last step does.
"""

from collections.abc import Iterator

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from minibench.folds.features import Features, frozen_model
from PADing.engine.recipes import build_recipe
from PADing.engine.trainer import Trainer
from PADing.errors import UserError

__all__ = ["predict", "train"]

BATCH = 250  # images at a time in inference


def train(cfg: CfgNode, features: Features) -> nn.Module:
    """Train the second stage of a config with ``SEED`` for ``SOLVER.MAX_ITER`` iterations; UserError if it diverges."""
    seed_all_rng(cfg.SEED)
    model = frozen_model(cfg)
    recipe = build_recipe(cfg, model)
    scheduler = Trainer.build_lr_scheduler(cfg, next(iter(recipe.optimizers.values())))
    model.match = _Matches(features)  # type: ignore[method-assign, assignment]
    averaged = _Average(model.classifier_parameters())  # type: ignore[operator]
    model.train()
    iterations = cfg.SOLVER.MAX_ITER
    batches = _batches(len(features.train_features), cfg.SOLVER.IMS_PER_BATCH, cfg.SEED)
    with EventStorage(0) as storage:
        for iteration in range(iterations):
            storage.iter = iteration
            recipe.step(model, next(batches), 0.0)
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
        raise UserError("The trained classifier has logits that are infinite or NaN. Lower its learning rate.")
    return logits * np.float32(model.inverse_temperature), model.output_names()  # type: ignore[operator, arg-type]


class _Matches:
    """Stands in for ``FrozenSegmenter.match``: a batch is a list of {"place", "mirrored"}."""

    def __init__(self, features: Features):
        self.features = torch.from_numpy(features.train_features)
        self.classes = torch.from_numpy(features.train_classes)
        self.unmatched = features.val_logits.shape[2] - 1

    def __call__(self, batch: list[dict]) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        place = torch.tensor([sample["place"] for sample in batch])
        mirrored = torch.tensor([sample["mirrored"] for sample in batch])
        features, classes = self.features[place, mirrored], self.classes[place, mirrored]
        image, query = (classes != self.unmatched).nonzero(as_tuple=True)
        return features, classes, classes[image, query], (image, query)


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
