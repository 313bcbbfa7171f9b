"""DeepLab's learning rate: a power of the remaining share of the training, after a warmup."""

from detectron2.solver.lr_scheduler import FactorScheduler, warmup_ramp
from torch.optim import Optimizer


class WarmupPolyLR(FactorScheduler):
    """Initial rate times ``(1 - iteration / max_iters) ** power``, times a ramp up to 1 during the warmup.

    Its attributes are entries of checkpoints. After the warmup, the rate is at least ``constant_ending`` times the
    initial one. ``last_epoch`` is the last iteration that has been trained, -1 for none.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_iters: int,
        warmup_factor: float = 0.001,
        warmup_iters: int = 1000,
        warmup_method: str = "linear",
        last_epoch: int = -1,
        power: float = 0.9,
        constant_ending: float = 0.0,
    ):
        self.power, self.max_iters, self.constant_ending = power, max_iters, constant_ending
        self.warmup_method, self.warmup_iters, self.warmup_factor = warmup_method, warmup_iters, warmup_factor
        super().__init__(optimizer, last_epoch)

    def factor(self, iteration: int) -> float:
        """The product of decay and ramp."""
        ramp = 1.0
        if iteration < self.warmup_iters:
            ramp = warmup_ramp(self.warmup_method, self.warmup_factor, 1.0)(iteration / self.warmup_iters)
        decay = (1 - min(iteration / self.max_iters, 1.0)) ** self.power
        return ramp * max(decay, self.constant_ending if ramp == 1.0 else 0.0)
