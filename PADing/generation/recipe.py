"""PADing's training recipe: two steps per iteration, each with its own optimizer."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol, runtime_checkable

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from PADing.engine.checkpointer import read_weights
from PADing.engine.merged_steps import SGD, Adam
from PADing.engine.recipes import TRAINING_RECIPE_REGISTRY, TrainingRecipe, micro_batches
from PADing.errors import UserError


@runtime_checkable
class TwoStepModel(Protocol):
    """The methods that the recipe needs, besides the two calls in :meth:`GeneratorClassifier.step`."""

    def begin_second_stage(self) -> None:
        """Check that training is possible, and prepare it. Called before weights are loaded."""

    def learn_from(self, weights: Mapping[str, Tensor], score: float, max_overlap: float) -> None:
        """Self-training: take labels from the state dict of a first model."""

    def generator_parameters(self) -> list[nn.Parameter]:
        """The parameters of the first step."""

    def classifier_parameters(self) -> list[nn.Parameter]:
        """The parameters of the second step."""


@TRAINING_RECIPE_REGISTRY.register()
class GeneratorClassifier(TrainingRecipe):
    """PADing's stage 2: each iteration trains first the generator, then the classifier, on the same batch.

    The generator side uses Adam at ``GENERATOR_LR`` (scheduled). The classifier uses SGD at ``BASE_LR`` (constant,
    momentum 0.9, weight decay 5e-4). Gradients are not clipped. ``SOLVER.OPTIMIZER``, ``WEIGHT_DECAY*`` and
    ``CLIP_GRADIENTS`` have no effect. Both share a gradient scaler, which is updated after each step.

    With ``MODEL.MASK_FORMER.SELF_TRAINING.WEIGHTS``, a first model's predictions label unmatched queries.
    """

    # The classifier step gives a gradient to two parameters only.
    find_unused_parameters = True
    accumulates = True

    def __init__(self, cfg: CfgNode, model: nn.Module):
        if not isinstance(model, TwoStepModel):
            name = type(model).__name__
            raise UserError(f"SOLVER.RECIPE GeneratorClassifier trains PADing, but MODEL.META_ARCHITECTURE is {name}.")
        super().__init__(cfg, model)
        if self.accumulate > 1 and not hasattr(model, "begin_micro_batches"):
            cure = "Set it to 1, or give the model the method begin_micro_batches."
            raise UserError(f"SOLVER.ACCUMULATE is {self.accumulate}, but the model takes no micro-batches. {cure}")
        model.begin_second_stage()
        first = cfg.MODEL.MASK_FORMER.SELF_TRAINING
        if first.WEIGHTS:
            model.learn_from(read_weights(first.WEIGHTS), first.SCORE, first.MAX_OVERLAP)
        self.optimizers["optimizer"] = Adam(model.generator_parameters(), cfg.SOLVER.GENERATOR_LR)
        self.optimizers["optimizer_2"] = SGD(
            model.classifier_parameters(), cfg.SOLVER.BASE_LR, momentum=0.9, weight_decay=5e-4
        )

    def step(self, model: nn.Module, batch: list[dict], data_time: float) -> None:
        """The generator step, then the classifier step.

        With ``SOLVER.ACCUMULATE`` the frozen segmenter, which needs most of the memory, sees one micro-batch after
        another. Both steps see the features of the whole batch, because their losses compare sets of features.
        """
        losses, query_features, target_classes = self._generate(model, batch)
        self.update(self.optimizers["optimizer"], losses, data_time, prefix="gan_loss_")
        losses = self._classify(model, query_features, target_classes)
        self.update(self.optimizers["optimizer_2"], losses, data_time, prefix="id_loss_")

    def step_shares(self, model: nn.Module, batches: Sequence[list[dict]], data_time: float) -> None:
        """As ``step``: each loss is computed on one share, and each of both gradients is the mean over all shares."""
        generator, classifier = self.optimizers["optimizer"], self.optimizers["optimizer_2"]
        kept: list[tuple[Tensor, Tensor]] = []
        total: dict[str, Tensor] = {}
        generator.zero_grad()
        with self.shares.together(model, batches):
            for batch in self.shares.each(model, batches):
                losses, *features = self._generate(model, batch)
                kept.append((features[0], features[1]))
                self._add(losses, total)
        self._finish_shares(generator, total, data_time, "gan_loss_")
        total = {}
        classifier.zero_grad()
        for features_and_classes in self.shares.each(model, kept):
            self._add(self._classify(model, *features_and_classes), total)
        self._finish_shares(classifier, total, data_time, "id_loss_")

    def _generate(self, model: nn.Module, batch: list[dict]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        with ExitStack() as stack:
            if self.accumulate > 1:
                stack.enter_context(micro_batches(model, batch, self.accumulate))
            stack.enter_context(self.precision.autocast())
            return model(batch)

    def _classify(self, model: nn.Module, query_features: Tensor, target_classes: Tensor) -> dict[str, Tensor]:
        with self.precision.autocast():
            return model(None, real_embeddings=query_features, target_classes=target_classes)

    def _add(self, losses: Mapping[str, Tensor], total: dict[str, Tensor]) -> None:
        losses = {name: loss / self.shares.number for name, loss in losses.items()}
        self.backward(losses)
        for name, loss in losses.items():
            total[name] = total.get(name, 0) + loss.detach()

    def _finish_shares(self, optimizer: torch.optim.Optimizer, total: dict, data_time: float, prefix: str) -> None:
        self.shares.add_gradients(optimizer)
        self.finish(optimizer, self.logged_shares(total), data_time, prefix)
