"""Learning rate schedules: warmup around any of fvcore's schedules, and a torch scheduler that applies them."""

import torch
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    LinearParamScheduler,
    ParamScheduler,
)
from torch.optim.lr_scheduler import LRScheduler

__all__ = ["LRMultiplier", "LRScheduler", "WarmupParamScheduler"]


class WarmupParamScheduler(CompositeParamScheduler):
    """A warmup stage in front of another schedule.

    Args:
        scheduler: the schedule after warmup, a function of the position in [0, 1].
        warmup_factor: the warmup starts at ``warmup_factor * scheduler(0)``.
        warmup_length: share of the training that is warmup, in [0, 1].
        warmup_method: "linear" ends at the value that the schedule has when it takes over; "constant" stays.
        rescale_interval: run the whole schedule in the time after warmup, instead of entering it at its own position.

    Raises:
        ValueError: unknown ``warmup_method``.
    """

    def __init__(
        self,
        scheduler: ParamScheduler,
        warmup_factor: float,
        warmup_length: float,
        warmup_method: str = "linear",
        rescale_interval: bool = False,
    ):
        start = warmup_factor * scheduler(0.0)
        if warmup_method == "linear":
            warmup = LinearParamScheduler(start, scheduler(0.0 if rescale_interval else warmup_length))
        elif warmup_method == "constant":
            warmup = ConstantParamScheduler(start)
        else:
            raise ValueError(f"Unknown warmup method: {warmup_method!r}. Use 'linear' or 'constant'.")
        super().__init__(
            [warmup, scheduler],
            lengths=[warmup_length, 1 - warmup_length],
            interval_scaling=["rescaled", "rescaled" if rescale_interval else "fixed"],
        )


class LRMultiplier(LRScheduler):
    """Multiplies each group's initial learning rate by a schedule of the position in the training.

    Args:
        optimizer: its groups' rates are the initial ones.
        multiplier: the schedule, a function of the position in [0, 1].
        max_iter: number of iterations; the position is ``iteration / max_iter``.
        last_iter: index of the last finished iteration; -1 to start.

    Raises:
        ValueError: ``multiplier`` is not one of fvcore's schedules.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, multiplier: ParamScheduler, max_iter: int, last_iter: int = -1
    ):
        if not isinstance(multiplier, ParamScheduler):
            raise ValueError(f"LRMultiplier needs an fvcore ParamScheduler as multiplier, got {multiplier!r}.")
        self._multiplier = multiplier
        self._max_iter = max_iter
        super().__init__(optimizer, last_epoch=last_iter)

    def state_dict(self) -> dict:
        """Initial rates and position only: a resumed run may continue under a changed schedule."""
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def get_lr(self) -> list[float]:
        """Learning rate of each parameter group at ``last_epoch``."""
        factor = self._multiplier(self.last_epoch / self._max_iter)
        return [base_lr * factor for base_lr in self.base_lrs]


def _get_warmup_factor_at_iter(method: str, iter: int, warmup_iters: int, warmup_factor: float) -> float:
    """Factor on the learning rate at iteration ``iter``: from ``warmup_factor`` to 1 over ``warmup_iters``.

    Raises:
        ValueError: unknown ``method``.
    """
    if iter >= warmup_iters:
        return 1.0
    if method == "constant":
        return warmup_factor
    if method == "linear":
        progress = iter / warmup_iters
        return warmup_factor * (1 - progress) + progress
    raise ValueError(f"Unknown warmup method: {method!r}. Use 'linear' or 'constant'.")
