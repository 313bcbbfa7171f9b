"""The exponential moving average of a model's weights (``SOLVER.EMA``)."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from PADing.errors import UserError

logger = logging.getLogger(__name__)

# The entry of a checkpoint: {"updates": number, "weights": a state dict}.
ENTRY = "ema"


class WeightAverage:
    """``average += (weight - average) * (1 - d)`` after every update, for all floating-point entries of a state dict.

    ``d`` is ``decay``; with ``warmup`` it is at most ``(1 + t) / (10 + t)`` in update t (from 1), so that the random
    first weights are forgotten soon. Other entries (counters) are copied.

    Args:
        model: the model in training, not wrapped. The average is that of its weights when training starts, unless a
            checkpoint brings one.
        decay: from 0 to below 1.
        warmup: see above.
    """

    def __init__(self, model: nn.Module, decay: float, warmup: bool) -> None:
        self.model, self.decay, self.warmup = model, decay, warmup
        self.updates, self.weights = 0, dict[str, Tensor]()

    @classmethod
    def of_config(cls, cfg: CfgNode, model: nn.Module) -> "WeightAverage | None":
        """The average that ``SOLVER.EMA`` asks for; None if it is not enabled."""
        ema = cfg.SOLVER.EMA
        return cls(model, ema.DECAY, ema.WARMUP) if ema.ENABLED else None

    @torch.no_grad()
    def begin(self) -> None:
        """Start from the model's weights, unless there is an average already."""
        if not self.weights:
            self.weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's weights after an update of the optimizers."""
        self.begin()
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay
        for name, value in self.model.state_dict().items():
            average = self.weights[name]
            if average.is_floating_point():
                average.lerp_(value, 1 - decay)  # exact where both are equal, as in frozen parts
            else:
                average.copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the averaged weights; afterwards its own, bit for bit."""
        self.begin()
        own = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self._set(self.weights)
        try:
            yield
        finally:
            self._set(own)

    @torch.no_grad()
    def _set(self, weights: Mapping[str, Tensor]) -> None:
        for name, value in self.model.state_dict().items():
            value.copy_(weights[name])

    def state_dict(self) -> dict[str, Any]:
        """The number of updates and the averaged weights."""
        return {"updates": self.updates, "weights": dict(self.weights)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue an average; ValueError if it is that of another model."""
        weights, own = state["weights"], self.model.state_dict()
        if type(state["updates"]) is not int or state["updates"] < 0:
            raise ValueError("ema.updates is no number of updates")
        for name, value in own.items():
            found = weights.get(name)
            if not isinstance(found, Tensor) or found.shape != value.shape or found.dtype != value.dtype:
                raise ValueError(f"ema.weights lacks {name} as the model has it")
        self.updates = state["updates"]
        self.weights = {name: weights[name].to(value.device, copy=True) for name, value in own.items()}


def choice_of_weights(cfg: CfgNode, training: bool) -> str:
    """Which weights of a checkpoint to load: "model", "ema", or "auto" (averaged ones, if the file has them).

    It is ``MODEL.WEIGHTS_FROM``. Its "auto" means "model" for a training and where ``SOLVER.EMA`` is not enabled.
    """
    choice = cfg.MODEL.WEIGHTS_FROM
    return "model" if choice == "auto" and (training or not cfg.SOLVER.EMA.ENABLED) else choice


def averaged_weights(content: Mapping[str, Any], choice: str, file: str) -> Mapping[str, Any] | None:
    """The averaged weights in a checkpoint's content, if they are to be loaded; else None.

    ``choice``: see :func:`choice_of_weights`. UserError if it is "ema", but the file has no averaged weights.
    """
    if choice == "model":
        return None
    entry = content.get(ENTRY)
    weights = entry.get("weights") if isinstance(entry, Mapping) else None
    if not isinstance(weights, Mapping) or not weights:
        if choice == "auto":
            logger.info("%s holds no averaged weights (SOLVER.EMA), so its ordinary weights are loaded.", file)
            return None
        cure = "Set MODEL.WEIGHTS_FROM model, or name a checkpoint of a training with SOLVER.EMA.ENABLED True."
        raise UserError(f"Weights {file!r} hold no averaged weights. {cure}")
    logger.info("Loading the averaged weights (EMA) of %s.", file)
    return weights
