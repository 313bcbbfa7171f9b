"""The usual hooks of a training."""

import contextlib
import itertools
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import timedelta

import torch
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter
from fvcore.common import checkpoint
from fvcore.nn.precise_bn import get_bn_modules, update_bn_stats
from torch.optim import Optimizer

from d2lite.omitted import omitted_names

from .train_loop import HookBase

__getattr__ = omitted_names(__name__, "AutogradProfiler TorchProfiler TorchMemoryStats")

logger = logging.getLogger(__name__)


class CallbackHook(HookBase):
    """A hook of functions of the trainer: ``before_train``, ``after_train``, ``before_step``, ``after_step``."""

    def __init__(self, **functions: Callable | None):
        unknown = functions.keys() - {"before_train", "after_train", "before_step", "after_step"}
        if unknown:
            raise TypeError(f"CallbackHook has no moment called {', '.join(sorted(unknown))}.")
        for moment, function in functions.items():
            if function is not None:
                setattr(self, moment, lambda function=function: function(self.trainer))


class _Periodic(HookBase):
    """Base of hooks that act every ``period`` iterations (0: never), and in the last iteration or after training."""

    _in_last_iteration = True  # False: after a complete training

    def __init__(self, period: int):
        self._period = period

    def _act(self) -> None:
        raise NotImplementedError

    def after_step(self) -> None:
        """Act if it is time."""
        done = self.trainer.iter + 1
        due = self._period > 0 and done % self._period == 0
        if self._in_last_iteration if done >= self.trainer.max_iter else due:
            self._act()

    def after_train(self) -> None:
        """Act if all iterations are done, and not after an exception or interruption."""
        if not self._in_last_iteration and self.trainer.iter >= self.trainer.max_iter:
            self._act()


class IterationTimer(HookBase):
    """Measures iterations: the scalar ``time`` in seconds, and a summary in the log after training.

    Register it first, so that it does not count other hooks. The first ``warmup_iter`` - 1 iterations are not counted.
    """

    def __init__(self, warmup_iter: int = 3):
        self._skip = max(warmup_iter - 1, 0)
        self.before_train()

    def before_train(self) -> None:
        """Forget what is measured."""
        self._measured, self._in_steps, self._since = 0, 0.0, time.perf_counter()

    def before_step(self) -> None:
        """Start the clock."""
        self._step_began = time.perf_counter()

    def after_step(self) -> None:
        """Put the scalar."""
        seconds = time.perf_counter() - self._step_began
        if self.trainer.iter - self.trainer.start_iter < self._skip:
            self.before_train()
            return
        self._measured += 1
        self._in_steps += seconds
        self.trainer.storage.put_scalar("time", seconds)

    def after_train(self) -> None:
        """Log the summary."""
        wall = time.perf_counter() - self._since
        steps, others, total = (timedelta(seconds=int(s)) for s in (self._in_steps, wall - self._in_steps, wall))
        if self._measured:
            mean = self._in_steps / self._measured
            logger.info("Overall training speed: %d iterations in %s (%.4f s / it)", self._measured, steps, mean)
        logger.info("Total training time: %s (%s on hooks)", total, others)


class PeriodicWriter(_Periodic):
    """Lets writers write every ``period`` iterations and at the end; then closes them. Usually the last hook."""

    def __init__(self, writers: Iterable[EventWriter], period: int = 20):
        super().__init__(period)
        self._writers = list(writers)
        assert all(isinstance(writer, EventWriter) for writer in self._writers), self._writers

    def after_train(self) -> None:
        """Write what an evaluation after training has found, and close the writers."""
        with contextlib.ExitStack() as at_the_end:
            for writer in self._writers:
                at_the_end.callback(writer.close)
            self._act()

    def _act(self) -> None:
        for writer in self._writers:
            writer.write()


class PeriodicCheckpointer(checkpoint.PeriodicCheckpointer, HookBase):
    """fvcore's class, which has the arguments, as a hook: ``model_0004999`` and so on, and ``model_final``."""

    def before_train(self) -> None:
        """Store the number of the last iteration."""
        self.max_iter = self.trainer.max_iter

    def after_step(self) -> None:
        """Save if it is time."""
        self.step(self.trainer.iter)


class BestCheckpointer(_Periodic):
    """Saves the model when a metric is better than before in this run; register it after the :class:`EvalHook`.

    ``eval_period`` is that of the EvalHook, ``val_metric`` a name in the event storage such as "bbox/AP"; the better
    value is the larger one for the mode "max" and the smaller one for "min". ``file_prefix`` is the checkpoint's name.
    """

    _in_last_iteration = False

    def __init__(
        self, eval_period: int, checkpointer, val_metric: str, mode: str = "max", file_prefix: str = "model_best"
    ):
        assert mode in ("max", "min"), f"mode is {mode!r}, but must be 'max' or 'min'."
        super().__init__(eval_period)
        self._checkpointer, self._metric, self._name = checkpointer, val_metric, file_prefix
        self._better = max if mode == "max" else min
        self.best_metric: float | None = None
        self.best_iter: int | None = None

    def _act(self) -> None:
        if self._metric not in self.trainer.storage.latest():
            logger.warning("No evaluation has put %r, so the best model is not known.", self._metric)
            return
        value, iteration = self.trainer.storage.latest()[self._metric]
        best = self.best_metric
        if not math.isfinite(value) or (best is not None and self._better(value, best) == best):
            logger.info("%s is %.5f, the best is %s: not saved", self._metric, value, best)
            return
        logger.info("%s is %.5f, the best before is %s: saved as %s", self._metric, value, best, self._name)
        self._checkpointer.save(self._name, iteration=iteration)
        self.best_metric, self.best_iter = value, iteration


class LRScheduler(HookBase):
    """Logs the scalar ``lr`` and steps the trainer's schedule after each iteration."""

    @staticmethod
    def get_best_param_group_id(optimizer: Optimizer) -> int:
        """Index of the largest group; among groups of single parameters, the first with the most common rate."""
        weights = [len(group["params"]) for group in optimizer.param_groups]
        if max(weights) == 1:
            rates = [float(group["lr"]) for group in optimizer.param_groups]
            frequency = Counter(rates)
            weights = [frequency[rate] for rate in rates]
        return weights.index(max(weights))

    def before_train(self) -> None:
        """Choose the group whose rate is logged, before rates change."""
        self._shown = self.get_best_param_group_id(self.trainer.optimizer)

    def after_step(self) -> None:
        """Log the rate of this iteration, and step the schedule."""
        rate = self.trainer.optimizer.param_groups[self._shown]["lr"]
        self.trainer.storage.put_scalar("lr", rate, smoothing_hint=False)
        self.trainer.scheduler.step()

    def state_dict(self) -> dict:
        """The schedule's."""
        return self.trainer.scheduler.state_dict()

    def load_state_dict(self, state_dict: dict) -> None:
        """Continue the schedule where it was."""
        self.trainer.scheduler.load_state_dict(state_dict)
        logger.info("The learning rate schedule continues from the checkpoint.")


class EvalHook(_Periodic):
    """Evaluates every ``eval_period`` iterations (0: never), and after training if that is complete.

    ``eval_function()`` returns numbers in dicts to any depth, which are put into the storage under names like
    "bbox/AP", or nothing. ValueError if a result is not a number.
    """

    _in_last_iteration = False

    def __init__(self, eval_period: int, eval_function: Callable[[], dict | None], eval_after_train: bool = True):
        super().__init__(eval_period)
        self._evaluate: Callable[[], dict | None] = eval_function
        self._at_the_end = eval_after_train

    def after_train(self) -> None:
        """Evaluate the trained model."""
        if self._at_the_end:
            super().after_train()
        del self._evaluate  # it may hold the trainer

    def _act(self) -> None:
        for name, result in flatten_results_dict(self._evaluate() or {}).items():
            try:
                self.trainer.storage.put_scalar(name, float(result), smoothing_hint=False)
            except (TypeError, ValueError) as error:
                message = f"The evaluation must return a nested dict of floats, but {name} is {result!r}."
                raise ValueError(message) from error
        comm.synchronize()  # or the fast processes would wait inside of the next step, and some backends give up


class PreciseBN(_Periodic):
    """Replaces batch norm's means by those over ``num_iter`` batches, each ``period`` iterations and in the last."""

    def __init__(self, period: int, model: torch.nn.Module, data_loader: Iterable, num_iter: int):
        super().__init__(period)
        self._model, self._number = model, num_iter
        self._batches = itertools.chain.from_iterable([data_loader])  # does not start the loader before it is needed
        self._needed = bool(get_bn_modules(model))
        if not self._needed:
            logger.info("No batch norm of the model is in training mode, so its statistics need not be recomputed.")

    def update_stats(self) -> None:
        """Recompute the statistics now."""
        if self._needed:
            logger.info("Recomputing the statistics of batch norm from %d batches ...", self._number)
            with EventStorage():  # losses in these batches are not the training's
                update_bn_stats(self._model, self._batches, self._number)

    def _act(self) -> None:
        self.update_stats()
