"""Polynomial decay with warmup."""

import torch
from detectron2.solver.lr_scheduler import LRScheduler, _get_warmup_factor_at_iter

__all__ = ["WarmupPolyLR"]


class WarmupPolyLR(LRScheduler):
    """``lr = base_lr * warmup(it) * (1 - it / max_iters) ** power``.

    Args:
        optimizer: its parameter groups' learning rates are the base rates.
        max_iters: length of the schedule, in iterations.
        warmup_factor, warmup_iters, warmup_method: as in the solver's schedules.
        last_epoch: index of the last finished iteration; -1 to start.
        power: exponent of the decay.
        constant_ending: after warmup, the rate does not fall below ``base_lr * constant_ending``. 0 turns that off.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        max_iters: int,
        warmup_factor: float = 0.001,
        warmup_iters: int = 1000,
        warmup_method: str = "linear",
        last_epoch: int = -1,
        power: float = 0.9,
        constant_ending: float = 0.0,
    ):
        self.max_iters = max_iters
        self.warmup_factor = warmup_factor
        self.warmup_iters = warmup_iters
        self.warmup_method = warmup_method
        self.power = power
        self.constant_ending = constant_ending
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Learning rate of each parameter group at ``last_epoch``."""
        warmup = _get_warmup_factor_at_iter(
            self.warmup_method, self.last_epoch, self.warmup_iters, self.warmup_factor
        )
        decay = (1.0 - self.last_epoch / self.max_iters) ** self.power
        if self.constant_ending > 0 and warmup == 1.0:
            decay = max(decay, self.constant_ending)
        return [base_lr * warmup * decay for base_lr in self.base_lrs]

    def _compute_values(self) -> list[float]:
        return self.get_lr()
