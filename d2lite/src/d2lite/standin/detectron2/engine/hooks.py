"""Hooks: timing, writing metrics, checkpoints, learning rate, evaluation, precise batch norm statistics."""

import datetime
import itertools
import logging
import math
import operator
import time
from collections import Counter
from collections.abc import Callable, Iterable

import detectron2.utils.comm as comm
import torch
from detectron2.solver import LRMultiplier
from detectron2.solver import LRScheduler as _LRScheduler
from detectron2.utils.events import EventStorage, EventWriter
from fvcore.common.checkpoint import Checkpointer
from fvcore.common.checkpoint import PeriodicCheckpointer as _PeriodicCheckpointer
from fvcore.common.param_scheduler import ParamScheduler
from fvcore.common.timer import Timer
from fvcore.nn.precise_bn import get_bn_modules, update_bn_stats

from .train_loop import HookBase

__all__ = [
    "BestCheckpointer",
    "CallbackHook",
    "EvalHook",
    "IterationTimer",
    "LRScheduler",
    "PeriodicCheckpointer",
    "PeriodicWriter",
    "PreciseBN",
]


class CallbackHook(HookBase):
    """A hook made of functions, each called with the trainer."""

    def __init__(
        self,
        *,
        before_train: Callable | None = None,
        after_train: Callable | None = None,
        before_step: Callable | None = None,
        after_step: Callable | None = None,
    ):
        self._before_train = before_train
        self._after_train = after_train
        self._before_step = before_step
        self._after_step = after_step

    def before_train(self) -> None:
        if self._before_train:
            self._before_train(self.trainer)

    def after_train(self) -> None:
        if self._after_train:
            self._after_train(self.trainer)
        # The functions may refer to the trainer, which would keep it alive.
        del self._before_train, self._after_train, self._before_step, self._after_step

    def before_step(self) -> None:
        if self._before_step:
            self._before_step(self.trainer)

    def after_step(self) -> None:
        if self._after_step:
            self._after_step(self.trainer)


class IterationTimer(HookBase):
    """Puts the seconds of each iteration into the storage as ``time``, and logs a summary at the end.

    Must be the first hook, so that the time of the others is not counted as the iteration's.

    Args:
        warmup_iter: so many iterations at the start are not counted.
    """

    def __init__(self, warmup_iter: int = 3):
        self._warmup_iter = warmup_iter
        self._step_timer = Timer()
        self._start_time = time.perf_counter()
        self._total_timer = Timer()

    def before_train(self) -> None:
        self._start_time = time.perf_counter()
        self._total_timer.reset()
        self._total_timer.pause()

    def after_train(self) -> None:
        logger = logging.getLogger(__name__)
        total = time.perf_counter() - self._start_time
        without_hooks = self._total_timer.seconds()
        iterations = self.trainer.storage.iter + 1 - self.trainer.start_iter - self._warmup_iter
        if iterations > 0 and without_hooks > 0:
            logger.info(
                "Overall training speed: %d iterations in %s (%.4f s / it)",
                iterations,
                datetime.timedelta(seconds=int(without_hooks)),
                without_hooks / iterations,
            )
        logger.info(
            "Total training time: %s (%s on hooks)",
            datetime.timedelta(seconds=int(total)),
            datetime.timedelta(seconds=int(total - without_hooks)),
        )

    def before_step(self) -> None:
        self._step_timer.reset()
        self._total_timer.resume()

    def after_step(self) -> None:
        done = self.trainer.storage.iter - self.trainer.start_iter + 1
        if done >= self._warmup_iter:
            self.trainer.storage.put_scalars(time=self._step_timer.seconds())
        else:
            self._start_time = time.perf_counter()
            self._total_timer.reset()
        self._total_timer.pause()


class PeriodicWriter(HookBase):
    """Calls event writers every ``period`` iterations, after the last one, and at the end.

    Args:
        writers: :class:`EventWriter` objects; closed at the end.
        period: in iterations.
    """

    def __init__(self, writers: list[EventWriter], period: int = 20):
        self._writers = writers
        for writer in writers:
            assert isinstance(writer, EventWriter), writer
        self._period = period

    def after_step(self) -> None:
        if (self.trainer.iter + 1) % self._period == 0 or self.trainer.iter == self.trainer.max_iter - 1:
            for writer in self._writers:
                writer.write()

    def after_train(self) -> None:
        for writer in self._writers:
            # Other hooks' after_train, such as an evaluation, may have added values.
            writer.write()
            writer.close()


class PeriodicCheckpointer(_PeriodicCheckpointer, HookBase):
    """Saves ``model_{iter:07d}`` every ``period`` iterations and ``model_final`` at the end. Arguments: see fvcore."""

    def before_train(self) -> None:
        self.max_iter = self.trainer.max_iter

    def after_step(self) -> None:
        self.step(self.trainer.iter)


class BestCheckpointer(HookBase):
    """Saves a checkpoint whenever a metric has its best value so far. Must come after the :class:`EvalHook`.

    Args:
        eval_period: how often the metric is new, in iterations.
        checkpointer: saves.
        val_metric: name of the metric in the event storage, such as ``"bbox/AP50"``.
        mode: "max" or "min".
        file_prefix: name of the file.
    """

    def __init__(
        self,
        eval_period: int,
        checkpointer: Checkpointer,
        val_metric: str,
        mode: str = "max",
        file_prefix: str = "model_best",
    ):
        assert mode in ("max", "min"), f'Mode "{mode}" is unknown. It should be one of "max" and "min".'
        self._period = eval_period
        self._checkpointer = checkpointer
        self._val_metric = val_metric
        self._better = operator.gt if mode == "max" else operator.lt
        self._file_prefix = file_prefix
        self.best_metric: float | None = None
        self.best_iter: int | None = None

    def _check(self) -> None:
        logger = logging.getLogger(__name__)
        latest, iteration = self.trainer.storage.latest().get(self._val_metric, (None, None))
        if latest is None:
            logger.warning(
                "Given val metric %s does not seem to be computed/stored. Will not be checkpointing based on it.",
                self._val_metric,
            )
            return
        if not math.isfinite(latest):
            return
        if self.best_metric is None or self._better(latest, self.best_metric):
            logger.info(
                "Saved best model as latest eval score for %s is %.5f, better than last best score %s.",
                self._val_metric,
                latest,
                "(none)" if self.best_metric is None else f"{self.best_metric:.5f} @ iteration {self.best_iter}",
            )
            self.best_metric, self.best_iter = latest, iteration
            self._checkpointer.save(self._file_prefix, iteration=iteration)
        else:
            logger.info(
                "Not saving as latest eval score for %s is %.5f, not better than best score %.5f @ iteration %d.",
                self._val_metric,
                latest,
                self.best_metric,
                self.best_iter,
            )

    def after_step(self) -> None:
        next_iter = self.trainer.iter + 1
        if self._period > 0 and next_iter % self._period == 0 and next_iter != self.trainer.max_iter:
            self._check()

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            self._check()


class LRScheduler(HookBase):
    """Steps the learning rate schedule after each iteration, and puts the rate into the storage as ``lr``.

    Args:
        optimizer: by default the trainer's.
        scheduler: a torch scheduler, or a schedule of fvcore; by default the trainer's.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer | None = None, scheduler: _LRScheduler | ParamScheduler | None = None
    ):
        self._optimizer = optimizer
        self._scheduler = scheduler

    def before_train(self) -> None:
        self._optimizer = self._optimizer or self.trainer.optimizer
        if isinstance(self.scheduler, ParamScheduler):
            self._scheduler = LRMultiplier(
                self._optimizer, self.scheduler, self.trainer.max_iter, last_iter=self.trainer.iter - 1
            )
        self._best_param_group_id = LRScheduler.get_best_param_group_id(self._optimizer)

    @staticmethod
    def get_best_param_group_id(optimizer: torch.optim.Optimizer) -> int:
        """The group whose rate stands for all: the largest; if all have one parameter, one with the commonest rate."""
        sizes = [len(group["params"]) for group in optimizer.param_groups]
        if max(sizes) > 1:
            return sizes.index(max(sizes))
        rates = [group["lr"] for group in optimizer.param_groups]
        return rates.index(Counter(rates).most_common(1)[0][0])

    def after_step(self) -> None:
        lr = self._optimizer.param_groups[self._best_param_group_id]["lr"]
        self.trainer.storage.put_scalar("lr", lr, smoothing_hint=False)
        self.scheduler.step()

    @property
    def scheduler(self) -> _LRScheduler | ParamScheduler:
        return self._scheduler or self.trainer.scheduler

    def state_dict(self) -> dict:
        return self.scheduler.state_dict() if isinstance(self.scheduler, _LRScheduler) else {}

    def load_state_dict(self, state_dict: dict) -> None:
        if isinstance(self.scheduler, _LRScheduler):
            logging.getLogger(__name__).info("Loading scheduler from state_dict ...")
            self.scheduler.load_state_dict(state_dict)


class EvalHook(HookBase):
    """Runs an evaluation every so often and after the last iteration, but never after a failed training.

    Args:
        eval_period: in iterations; 0 means only after the last one.
        eval_function: takes nothing and returns a nested dict of numbers, whose entries are put into the storage under
            names like ``task/metric``.
        eval_after_train: also run after the last iteration.
    """

    def __init__(self, eval_period: int, eval_function: Callable[[], dict], eval_after_train: bool = True):
        self._period = eval_period
        self._func = eval_function
        self._eval_after_train = eval_after_train

    def _do_eval(self) -> None:
        from detectron2.evaluation.testing import flatten_results_dict  # hooks alone need no evaluators

        results = self._func()
        if results:
            assert isinstance(results, dict), f"Eval function must return a dict. Got {results} instead."
            flat = {}
            for name, value in flatten_results_dict(results).items():
                try:
                    flat[name] = float(value)
                except (TypeError, ValueError) as error:
                    raise ValueError(
                        "[EvalHook] eval_function should return a nested dict of float. "
                        f"Got '{name}: {value}' instead."
                    ) from error
            self.trainer.storage.put_scalars(**flat, smoothing_hint=False)
        # Processes may take different times, and some libraries give up waiting.
        comm.synchronize()

    def after_step(self) -> None:
        next_iter = self.trainer.iter + 1
        # The evaluation at the end belongs to after_train.
        if self._period > 0 and next_iter % self._period == 0 and next_iter != self.trainer.max_iter:
            self._do_eval()

    def after_train(self) -> None:
        # After an exception the trainer has not counted to the end.
        if self._eval_after_train and self.trainer.iter >= self.trainer.max_iter:
            self._do_eval()
        # The function usually refers to the trainer, which would keep it alive.
        del self._func


class PreciseBN(HookBase):
    """Recomputes batch norm statistics every so often, and after the last iteration.

    Args:
        period: in iterations; 0 means only after the last one.
        model: only batch norm layers in training mode are updated; without any, the hook does nothing.
        data_loader: batches for the model.
        num_iter: how many of them.
    """

    def __init__(self, period: int, model: torch.nn.Module, data_loader: Iterable, num_iter: int):
        self._logger = logging.getLogger(__name__)
        self._disabled = not get_bn_modules(model)
        if self._disabled:
            self._logger.info("PreciseBN is disabled because model does not contain BN layers in training mode.")
        self._period = period
        self._model = model
        self._data_loader = data_loader
        self._num_iter = num_iter
        self._data_iter = None

    def after_step(self) -> None:
        next_iter = self.trainer.iter + 1
        if next_iter == self.trainer.max_iter or (self._period > 0 and next_iter % self._period == 0):
            self.update_stats()

    def update_stats(self) -> None:
        """Recompute the statistics now."""
        if self._disabled:
            return
        if self._data_iter is None:
            self._data_iter = iter(self._data_loader)

        def batches():
            for count in itertools.count(1):
                if count % 100 == 0:
                    self._logger.info("Running precise-BN ... %d/%d iterations.", count, self._num_iter)
                yield next(self._data_iter)

        with EventStorage():  # what the model reports now is not training
            self._logger.info(
                "Running precise-BN for %d iterations. It can produce different statistics every time.", self._num_iter
            )
            update_bn_stats(self._model, batches(), self._num_iter)
