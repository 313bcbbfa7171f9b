"""DeepLab's learning rate: a power of the remaining share of the training, after a warmup."""

from detectron2.solver.lr_scheduler import FactorScheduler, warmup_ramp
from fvcore.common.param_scheduler import PolynomialDecayParamScheduler
from torch.optim import Optimizer

__all__ = ["WarmupPolyLR"]


class WarmupPolyLR(FactorScheduler):
    """Initial rate times ``(1 - iteration / max_iters) ** power``, times a ramp up to 1 during the warmup.

    Its attributes are entries of checkpoints.

    Args:
        optimizer: has the initial rates.
        max_iters: iterations of the training; the rate is 0 then.
        warmup_factor: the ramp's first value.
        warmup_iters: iterations of the ramp.
        warmup_method: "linear" or "constant".
        last_epoch: last iteration that has been trained, -1 for none.
        power: 1 decays linearly.
        constant_ending: once the ramp has reached 1, the rate is at least this times the initial one.
    """

    def __init__(
        self, optimizer: Optimizer, max_iters: int,
        warmup_factor=0.001, warmup_iters=1000, warmup_method="linear", last_epoch=-1, power=0.9, constant_ending=0.0,
    ):  # fmt: skip
        self.power, self.max_iters, self.constant_ending = power, max_iters, constant_ending
        self.warmup_method, self.warmup_iters, self.warmup_factor = warmup_method, warmup_iters, warmup_factor
        super().__init__(optimizer, last_epoch)

    def factor(self, iteration: int) -> float:
        ramp = 1.0
        if iteration < self.warmup_iters:
            ramp = warmup_ramp(self.warmup_method, self.warmup_factor, 1.0)(iteration / self.warmup_iters)
        done = min(iteration / self.max_iters, 1.0)
        decay = PolynomialDecayParamScheduler(1.0, self.power)(done)
        return ramp * max(decay, self.constant_ending if ramp == 1.0 else 0.0)
