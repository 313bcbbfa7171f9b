"""Training recipes: they define the optimizers and what one iteration does.

``SOLVER.RECIPE`` chooses the recipe; if it is empty, the ``training_recipe`` attribute of the meta-architecture does.
A method that trains in another way registers its own ``TrainingRecipe`` in ``TRAINING_RECIPE_REGISTRY``.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import cast

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.registry import Registry
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from PADing.engine.loss_values import Diverged as Diverged
from PADing.engine.loss_values import LossValues
from PADing.engine.optimizers import build_optimizer, clips_full_model
from PADing.engine.sharding import shard_optimizers
from PADing.engine.shares import Shares, share_number, takes_shares
from PADing.errors import UserError
from PADing.meta_arch.contract import contract_of

logger = logging.getLogger(__name__)

TRAINING_RECIPE_REGISTRY = Registry("TRAINING_RECIPE")
TRAINING_RECIPE_REGISTRY.__doc__ = "Subclasses of ``TrainingRecipe``, called with (cfg, model)."
DEFAULT_RECIPE = "OneOptimizer"


def log_losses(losses: Mapping[str, Tensor], data_time: float, prefix: str = "") -> None:
    """Log losses now; see :class:`LossValues`."""
    LossValues(losses, data_time, prefix).log()


class Scaler(torch.amp.GradScaler):
    """A gradient scaler that also loads the empty state of a disabled scaler."""

    def load_state_dict(self, state_dict: dict) -> None:
        """As in the base class; an empty state changes nothing."""
        if state_dict:
            super().load_state_dict(state_dict)


class Precision:
    """Mixed precision of ``SOLVER.AMP`` on one device; with ``ENABLED False``, ``scaler`` and ``autocast`` do nothing.

    float16 on a GPU needs gradient scaling. bfloat16 has float32's range and needs none; the CPU always uses bfloat16.
    UserError for another ``SOLVER.AMP.PRECISION``.

    Attributes:
        scaler: one gradient scaler for all optimizers of a recipe.
    """

    def __init__(self, cfg: CfgNode, device: torch.device):
        amp, types = cfg.SOLVER.AMP, {"float16": torch.float16, "bfloat16": torch.bfloat16}
        if amp.PRECISION not in types:
            raise UserError(f"SOLVER.AMP.PRECISION is {amp.PRECISION!r}, but must be 'float16' or 'bfloat16'.")
        self.device_type, self.enabled, self.dtype = device.type, amp.ENABLED, types[amp.PRECISION]
        if self.enabled and device.type == "cpu" and self.dtype == torch.float16:
            self.dtype = torch.bfloat16
            logger.info("Mixed precision on the CPU uses bfloat16. To train in float32, set SOLVER.AMP.ENABLED False.")
        needs_scaling = self.enabled and self.dtype == torch.float16
        self.scaler = Scaler(device.type if needs_scaling else "cpu", enabled=needs_scaling)

    def autocast(self) -> torch.autocast:
        """The context for a forward pass."""
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=self.enabled)


class TrainingRecipe:
    """Optimizers, gradient scaling and the body of one iteration.

    ``__init__`` builds the optimizers before the model is wrapped for several processes and before weights are loaded.

    Attributes:
        accumulates: whether ``step`` can make one update of ``accumulate`` micro-batches. It counts for the class that
            also defines ``step``: a subclass with a step of its own says again that it can.
        accumulate: ``SOLVER.ACCUMULATE``, the number of micro-batches of an update.
        shares: how the batch is split among processes, when the training begins. A recipe whose processes may compute
            several shares also defines ``step_shares``; a subclass with a step of its own defines it anew.
        optimizers: by their name in a checkpoint; the scheduler changes the learning rate of the first.
        find_unused_parameters: passed to ``DistributedDataParallel``: True if a backward pass may leave trainable
            parameters without a gradient.
    """

    find_unused_parameters = False
    accumulates = False

    def __init__(self, cfg: CfgNode, model: nn.Module):
        self.accumulate = checked_accumulation(cfg, type(self))
        self.shares = Shares()
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.precision = Precision(cfg, next(model.parameters()).device)

    def checkpointables(self) -> dict[str, object]:
        """The parts that a checkpoint holds besides the model, by name."""
        return {**self.optimizers, "scaler": self.precision.scaler}

    def step(self, model: nn.Module, batch: list[dict], data_time: float) -> None:
        """Train on one batch. ``model`` may be wrapped; ``data_time``: seconds that the batch took to load."""
        raise NotImplementedError

    def step_shares(self, model: nn.Module, batches: Sequence[list[dict]], data_time: float) -> None:
        """Train on the batches of this process's ``shares``, if they are not one for each process.

        ``model`` is not wrapped. The losses of each share are divided by the number of all shares, gradients are added
        by ``Shares.add_gradients``, and logged losses are prepared by ``logged_shares``.
        """
        raise NotImplementedError

    def logged_shares(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums of the own shares' losses, each divided by the number of shares, as terms of a mean over processes."""
        return {name: loss.detach() * self.shares.world for name, loss in losses.items()}

    def update(
        self, optimizer: torch.optim.Optimizer, losses: Mapping[str, Tensor], data_time: float, prefix: str = "",
        clip: Mapping | None = None,
    ) -> None:  # fmt: skip
        """Backward pass of the sum of ``losses``, logging, and one step of ``optimizer``.

        ``clip``: ``{"max_norm", "norm_type"}``, to clip by one gradient norm over all parameters of the optimizer.
        ``Diverged`` if a loss is infinite or NaN; the parameters do not change then.
        """
        optimizer.zero_grad()
        values = LossValues(losses, data_time, prefix)
        self.backward(losses)
        self.finish(optimizer, values, clip=clip)

    def backward(self, losses: Mapping[str, Tensor]) -> None:
        """Add the gradient of the sum of ``losses`` to the parameters' gradients."""
        self.precision.scaler.scale(cast(Tensor, sum(losses.values()))).backward()

    def finish(
        self, optimizer: torch.optim.Optimizer, losses: Mapping[str, Tensor] | LossValues, data_time: float = 0.0,
        prefix: str = "", clip: Mapping | None = None,
    ) -> None:  # fmt: skip
        """The rest of ``update``, when the gradients are there. ``LossValues`` have ``data_time`` and ``prefix``."""
        scaler = self.precision.scaler
        # The parameters must not change if a loss is not finite.
        (losses if isinstance(losses, LossValues) else LossValues(losses, data_time, prefix)).log()
        if clip is not None:
            scaler.unscale_(optimizer)
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, **clip)
        scaler.step(optimizer)
        scaler.update()


@TRAINING_RECIPE_REGISTRY.register()
class OneOptimizer(TrainingRecipe):
    """The model returns its losses; one optimizer minimises their sum. Stage 1 of PADing, and D2Zero."""

    accumulates = True

    def __init__(self, cfg: CfgNode, model: nn.Module):
        super().__init__(cfg, model)
        self.optimizers["optimizer"] = build_optimizer(cfg, model)
        self.find_unused_parameters = contract_of(model).find_unused_parameters
        clip = cfg.SOLVER.CLIP_GRADIENTS
        self.clip = {"max_norm": clip.CLIP_VALUE, "norm_type": clip.NORM_TYPE} if clips_full_model(cfg) else None

    def step(self, model: nn.Module, batch: list[dict], data_time: float) -> None:
        """Forward and backward pass of each micro-batch, one update."""
        optimizer = self.optimizers["optimizer"]
        if self.accumulate == 1:
            self.update(optimizer, self._losses(model, batch), data_time, clip=self.clip)
            return
        optimizer.zero_grad()
        values: list[LossValues] = []
        self._backward_in_parts(model, batch, 1, lambda losses: values.append(LossValues(losses, data_time)))
        self.finish(optimizer, values[0], clip=self.clip)

    def step_shares(self, model: nn.Module, batches: Sequence[list[dict]], data_time: float) -> None:
        """As ``step``: the gradient is the mean over all shares."""
        optimizer, total = self.optimizers["optimizer"], dict[str, Tensor]()

        def add(losses: Mapping[str, Tensor]) -> None:
            for name, loss in losses.items():
                total[name] = total.get(name, 0) + loss

        optimizer.zero_grad()
        with self.shares.together(model, batches):
            for batch in self.shares.each(model, batches):
                self._backward_in_parts(model, batch, self.shares.number, add)
        self.shares.add_gradients(optimizer)
        self.finish(optimizer, self.logged_shares(total), data_time, clip=self.clip)

    def _backward_in_parts(
        self, model: nn.Module, batch: list[dict], shares: int, known: Callable[[Mapping[str, Tensor]], None]
    ) -> None:
        """Forward and backward pass of each micro-batch; ``known`` gets the losses before the last backward pass."""
        sums: dict[str, Tensor] = {}
        with micro_batches(model, batch, self.accumulate) as parts:
            for part in parts:
                last = part is parts[-1]
                # Processes share their gradients once, with the last micro-batch.
                with nullcontext() if last or not isinstance(model, DistributedDataParallel) else model.no_sync():
                    scale = len(parts) * shares
                    losses = {name: loss / scale for name, loss in self._losses(model, part).items()}
                    for name, loss in losses.items():
                        sums[name] = sums.get(name, 0) + loss.detach()
                    if last:
                        known(sums)
                    self.backward(losses)

    def _losses(self, model: nn.Module, batch: list[dict]) -> dict[str, Tensor]:
        with self.precision.autocast():
            losses = model(batch)
        return {"total_loss": losses} if isinstance(losses, Tensor) else losses


@contextmanager
def micro_batches(model: nn.Module, batch: list[dict], number: int) -> Iterator[list[list[dict]]]:
    """``batch`` in ``number`` parts of equal size; inside the block the model knows that they are one batch."""
    if number == 1:
        yield [batch]
        return
    size = len(batch) // number
    parts = [batch[i : i + size] for i in range(0, len(batch), size)]
    contract = contract_of(model.module if isinstance(model, DistributedDataParallel) else model)
    contract.begin_micro_batches(parts)
    try:
        yield parts
    finally:
        contract.begin_micro_batches(())


def batch_problem(cfg: CfgNode, processes: int, shares: bool = True) -> str:
    """Why so many processes (``SOLVER.ACCUMULATE`` micro-batches) cannot split the batch; "" if they can.

    ``shares``: whether the recipe takes several shares in one process.
    """
    images, number, reference = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATE, cfg.SOLVER.REFERENCE_WORLD_SIZE
    # With a reference, Detectron2 adapts the batch to the number of processes.
    sharers = reference if reference > 0 else processes
    which = "SOLVER.REFERENCE_WORLD_SIZE" if reference > 0 else "processes"
    split = 0
    if shares and reference <= 0:
        least = cfg.SOLVER.SHARES
        if least > 1 and images % least:
            return f"SOLVER.IMS_PER_BATCH is {images}. Set a multiple of SOLVER.SHARES, which is {least}."
        if sharers > images:
            cure = "Each needs an image of every batch: set a larger batch, or start fewer processes."
            return f"SOLVER.IMS_PER_BATCH is {images}, but there are {sharers} processes. {cure}"
        split = share_number(images, sharers, least, number)
    elif images % sharers:
        wanted = f"a multiple of {sharers} ({which}), which share each batch evenly"
        return f"SOLVER.IMS_PER_BATCH is {images}. Set {wanted}."
    if number < 2 or split or images % (number * sharers) == 0:
        return ""
    share = f"SOLVER.ACCUMULATE {number} times {sharers} process{'es' if sharers > 1 else ''}"
    cure = "Each process needs the same number of images in each micro-batch"
    return f"SOLVER.IMS_PER_BATCH is {images}, not a multiple of {number * sharers} ({share}). {cure}."


def checked_accumulation(cfg: CfgNode, recipe: type[TrainingRecipe]) -> int:
    """``SOLVER.ACCUMULATE``; UserError if the batch cannot be split so, or the recipe cannot accumulate."""
    number = cfg.SOLVER.ACCUMULATE
    if number > 1:
        owner = next(kind for kind in recipe.__mro__ if "step" in vars(kind))
        if not vars(owner).get("accumulates", False):
            problem = f"SOLVER.ACCUMULATE is {number}, but the recipe {recipe.__name__} cannot accumulate."
            cure = "Set it to 1, or write a step for micro-batches and set `accumulates = True` in its class."
            raise UserError(f"{problem} {cure}")
        if problem := batch_problem(cfg, comm.get_world_size(), takes_shares(recipe)):
            raise UserError(problem)
    return number


def build_recipe(cfg: CfgNode, model: nn.Module) -> TrainingRecipe:
    """The recipe that the config names, or else the model's own, or else ``OneOptimizer``; UserError if unknown."""
    name = cfg.SOLVER.RECIPE or contract_of(model).training_recipe
    if name not in TRAINING_RECIPE_REGISTRY:
        known = ", ".join(sorted(key for key, _ in TRAINING_RECIPE_REGISTRY))
        raise UserError(f"SOLVER.RECIPE {name!r} is not a training recipe. There are: {known}.")
    recipe = TRAINING_RECIPE_REGISTRY.get(name)(cfg, model)
    shard_optimizers(cfg, recipe.optimizers.values())
    return recipe
