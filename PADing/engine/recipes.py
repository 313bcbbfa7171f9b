"""Training recipes: which optimizers there are, and what one iteration does.

A recipe is chosen by ``SOLVER.RECIPE`` or, when that is empty, by the ``training_recipe`` attribute of the
meta-architecture. A method that trains in another way registers one::

    @TRAINING_RECIPE_REGISTRY.register()
    class MyRecipe(TrainingRecipe):
        def __init__(self, cfg, model): ...
        def step(self, model, batch, data_time): ...
"""

from collections.abc import Mapping
from typing import cast

import torch
from detectron2.config import CfgNode
from detectron2.utils.registry import Registry
from torch import Tensor, nn

from PADing.engine.metrics import log_losses
from PADing.engine.optimizers import build_optimizer, clips_full_model
from PADing.engine.precision import Precision
from PADing.errors import UserError
from PADing.meta_arch.contract import contract_of

TRAINING_RECIPE_REGISTRY = Registry("TRAINING_RECIPE")
TRAINING_RECIPE_REGISTRY.__doc__ = "Subclasses of ``TrainingRecipe``, called with (cfg, model)."

DEFAULT_RECIPE = "OneOptimizer"


class TrainingRecipe:
    """Optimizers, gradient scaling and the body of one iteration.

    Subclasses build their optimizers in ``__init__`` from the bare model, before it may be wrapped for several
    processes and before weights are loaded.

    Args:
        cfg: the config.
        model: the bare model, on its device.

    Attributes:
        optimizers: by the name under which a checkpoint holds them; the learning rate of the first is scheduled.
        find_unused_parameters: whether a backward pass may leave trainable parameters without a gradient, which
            ``DistributedDataParallel`` has to know.
    """

    find_unused_parameters = False

    def __init__(self, cfg: CfgNode, model: nn.Module):
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.precision = Precision(cfg, next(model.parameters()).device)

    def checkpointables(self) -> dict[str, object]:
        """What a checkpoint holds besides the model."""
        return {**self.optimizers, "scaler": self.precision.scaler}

    def step(self, model: nn.Module, batch: list[dict], data_time: float) -> None:
        """Train on one batch. ``model`` may be wrapped; ``data_time`` is how long the batch took to load (seconds)."""
        raise NotImplementedError

    def update(
        self,
        optimizer: torch.optim.Optimizer,
        losses: Mapping[str, Tensor],
        data_time: float,
        prefix: str = "",
        clip: Mapping | None = None,
    ) -> None:
        """Backward pass of the sum of ``losses``, log, one step of ``optimizer``.

        Args:
            clip: ``{"max_norm", "norm_type"}`` for one gradient norm over all parameters of the optimizer.

        Raises:
            Diverged: a loss is infinite or NaN; the parameters are as they were.
        """
        scaler = self.precision.scaler
        optimizer.zero_grad()
        scaler.scale(cast(Tensor, sum(losses.values()))).backward()
        # The values are fetched after the backward pass has been launched, so that a GPU does not wait for them.
        log_losses(losses, data_time, prefix)
        if clip is not None:
            scaler.unscale_(optimizer)
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, **clip)
        scaler.step(optimizer)
        scaler.update()


@TRAINING_RECIPE_REGISTRY.register()
class OneOptimizer(TrainingRecipe):
    """The model returns its losses; one optimizer minimises their sum. Stage 1 of PADing, and D2Zero."""

    def __init__(self, cfg: CfgNode, model: nn.Module):
        super().__init__(cfg, model)
        self.optimizers["optimizer"] = build_optimizer(cfg, model)
        self.find_unused_parameters = contract_of(model).find_unused_parameters
        self.clip = None
        if clips_full_model(cfg):
            clip = cfg.SOLVER.CLIP_GRADIENTS
            self.clip = {"max_norm": clip.CLIP_VALUE, "norm_type": clip.NORM_TYPE}

    def step(self, model: nn.Module, batch: list[dict], data_time: float) -> None:
        """Forward and backward pass, one update."""
        with self.precision.autocast():
            losses = model(batch)
        if isinstance(losses, Tensor):
            losses = {"total_loss": losses}
        self.update(self.optimizers["optimizer"], losses, data_time, clip=self.clip)


def build_recipe(cfg: CfgNode, model: nn.Module) -> TrainingRecipe:
    """The recipe that the config names, or else the model's own, or else ``OneOptimizer``."""
    name = cfg.SOLVER.RECIPE or contract_of(model).training_recipe
    if name not in TRAINING_RECIPE_REGISTRY:
        known = ", ".join(sorted(key for key, _ in TRAINING_RECIPE_REGISTRY))
        raise UserError(f"SOLVER.RECIPE {name!r} is not a training recipe. There are: {known}.")
    return TRAINING_RECIPE_REGISTRY.get(name)(cfg, model)
