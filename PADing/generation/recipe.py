"""PADing's training recipe: two steps per iteration, each with its own optimizer."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Protocol, runtime_checkable

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
        with ExitStack() as stack:
            if self.accumulate > 1:
                stack.enter_context(micro_batches(model, batch, self.accumulate))
            stack.enter_context(self.precision.autocast())
            losses, query_features, target_classes = model(batch)
        self.update(self.optimizers["optimizer"], losses, data_time, prefix="gan_loss_")
        with self.precision.autocast():
            losses = model(None, real_embeddings=query_features, target_classes=target_classes)
        self.update(self.optimizers["optimizer_2"], losses, data_time, prefix="id_loss_")
