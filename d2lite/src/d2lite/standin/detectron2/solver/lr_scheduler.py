"""Learning rates that are a fixed multiple of the initial ones at each iteration."""

from fvcore.common.param_scheduler import ConstantParamScheduler, LinearParamScheduler, ParamScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


def warmup_ramp(method: str, first: float, last: float) -> ParamScheduler:
    """A warmup from position 0 to 1: "linear" goes from ``first`` to ``last``, "constant" stays at ``first``."""
    if method == "constant":
        return ConstantParamScheduler(first)
    if method == "linear":
        return LinearParamScheduler(first, last)
    raise ValueError(f"The warmup method must be 'linear' or 'constant', but is {method!r} (SOLVER.WARMUP_METHOD).")


class WarmupParamScheduler(ParamScheduler):
    """Any schedule of fvcore, with a warmup up to position ``warmup_length`` (0 to 1) in place of its beginning.

    The first value is ``warmup_factor`` times that of ``scheduler``; a linear warmup ends where that takes over: in its
    middle, or with ``rescale_interval`` at its own start, to run to its end in the remaining time.
    """

    def __init__(
        self,
        scheduler: ParamScheduler,
        warmup_factor: float,
        warmup_length: float,
        warmup_method: str = "linear",
        rescale_interval: bool = False,
    ):
        self._main, self._end, self._rescale = scheduler, warmup_length, rescale_interval
        self._ramp = warmup_ramp(warmup_method, warmup_factor * scheduler(0.0), self._after_warmup(warmup_length))

    def __call__(self, where: float) -> float:
        """The value at a position."""
        return self._ramp(where / self._end) if where < self._end else self._after_warmup(where)

    def _after_warmup(self, where: float) -> float:
        if self._rescale:
            # If the warmup takes the whole training, the schedule stays at its start.
            where = (where - self._end) / (1 - self._end) if self._end < 1 else 0.0
        return self._main(where)


class FactorScheduler(LRScheduler):
    """Base of the schedules here: every group's rate is its initial one times ``factor(iteration)``."""

    def factor(self, iteration: int) -> float:
        """The factor of the initial rates."""
        raise NotImplementedError

    def get_lr(self) -> list[float | Tensor]:
        """The rates for iteration ``last_epoch``, which torch counts from 0."""
        now = self.factor(self.last_epoch)
        return [initial * now for initial in self.base_lrs]


class LRMultiplier(FactorScheduler):
    """An fvcore schedule over ``max_iter`` iterations; ``last_iter`` is the last trained one, -1 for none."""

    def __init__(self, optimizer: Optimizer, multiplier: ParamScheduler, max_iter: int, last_iter: int = -1):
        if not isinstance(multiplier, ParamScheduler):
            raise ValueError(f"LRMultiplier needs an fvcore ParamScheduler as multiplier, got {multiplier!r}.")
        self._position_to_factor, self._length = multiplier, max_iter
        super().__init__(optimizer, last_iter)

    def factor(self, iteration: int) -> float:
        """The schedule's value."""
        return self._position_to_factor(iteration / self._length)

    def state_dict(self) -> dict:
        """The position and the initial rates, without the schedule, so that a resumed run may change it."""
        return {key: getattr(self, key) for key in ("base_lrs", "last_epoch")}
