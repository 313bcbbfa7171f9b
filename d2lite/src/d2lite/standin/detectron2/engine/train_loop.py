"""The training loop with its hooks, and the iteration of one model with one optimizer."""

import contextlib
import functools
import logging
import math
import statistics
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, get_event_storage

logger = logging.getLogger(__name__)


class HookBase:
    """Base of hooks, which add logs, checkpoints, evaluation, ... to a training.

    A trainer calls its hooks in the order of their registration: ``after_train`` however the training has ended,
    ``after_backward`` if it has a backward pass of its own. One with a ``state_dict`` has a ``load_state_dict``.
    """

    trainer: Any = None  # a weak reference

    def before_train(self):
        """``trainer.iter`` is the first iteration."""

    def before_step(self):
        """``trainer.iter`` is the iteration that begins."""

    def after_backward(self):
        """Called when gradients are computed and parameters have not changed yet."""

    def after_step(self):
        """``trainer.iter`` is the iteration that ends."""

    def after_train(self):
        """``trainer.iter`` is ``trainer.max_iter``, or the iteration that has failed."""

    def state_dict(self) -> dict:
        """What a checkpoint needs to know."""
        return {}


class TrainerBase:
    """Calls ``run_step``, which subclasses define, and the hooks for a range of iterations."""

    iter: int = 0  # the current iteration; max_iter at the end
    start_iter: int = 0
    max_iter: int  # of the whole training
    storage: EventStorage  # from train on

    def __init__(self) -> None:
        self._hooks: list[HookBase] = []

    def register_hooks(self, hooks: Iterable[HookBase | None]) -> None:
        """Append hooks; None entries are skipped."""
        for hook in hooks:
            if hook is None:
                continue
            assert isinstance(hook, HookBase), f"Hooks must be derived from HookBase, but {hook} is not."
            # A weak reference, because trainer and hooks would keep each other (and the model's memory) alive.
            hook.trainer = weakref.proxy(self)
            self._hooks.append(hook)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run the iterations from ``start_iter`` up to, but not including, ``max_iter``."""
        logger.info("Starting training from iteration %d", start_iter)
        self.iter, self.start_iter, self.max_iter = start_iter, start_iter, max_iter
        with contextlib.ExitStack() as at_the_end:  # its entries run in reverse order
            self.storage = at_the_end.enter_context(EventStorage(start_iter))
            at_the_end.callback(self._finish)
            at_the_end.push(self._log_failure)
            self.before_train()
            while self.iter < max_iter:
                self.storage.iter = self.iter
                self.before_step()
                self.run_step()
                self.after_step()
                self.iter += 1

    def run_step(self) -> None:
        """One iteration, without hooks; a subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__} does not define run_step().")

    def _finish(self) -> None:
        self.storage.iter = self.iter
        self.after_train()

    def _log_failure(self, kind, error, traceback) -> None:
        # An interruption is not logged as a failure.
        if isinstance(error, Exception):
            logger.error("Training has failed in iteration %d:", self.iter, exc_info=error)

    def _call_hooks(self, moment: str) -> None:
        for hook in self._hooks:
            getattr(hook, moment)()

    before_train = functools.partialmethod(_call_hooks, "before_train")
    before_step = functools.partialmethod(_call_hooks, "before_step")
    after_backward = functools.partialmethod(_call_hooks, "after_backward")
    after_step = functools.partialmethod(_call_hooks, "after_step")
    after_train = functools.partialmethod(_call_hooks, "after_train")

    def state_dict(self) -> dict:
        """The iteration, and the hooks' states by the names of their classes; the first hook of a class counts."""
        hooks = {type(hook).__qualname__: state for hook in reversed(self._hooks) if (state := hook.state_dict())}
        return {"iteration": self.iter} | ({"hooks": hooks} if hooks else {})

    def load_state_dict(self, state_dict: dict) -> None:
        """Load the iteration and the states of registered hooks."""
        self.iter = state_dict["iteration"]
        present: dict[str, Any] = {type(hook).__qualname__: hook for hook in reversed(self._hooks)}
        for name, state in state_dict.get("hooks", {}).items():
            if name in present:
                present[name].load_state_dict(state)
            else:
                logger.warning("The checkpoint has a state for the hook %s, which this training does not use.", name)


class SimpleTrainer(TrainerBase):
    """One ``model`` (batch -> losses or a loss), one endless ``data_loader``, one ``optimizer``."""

    def __init__(self, model: torch.nn.Module, data_loader: Iterable, optimizer: torch.optim.Optimizer):
        super().__init__()
        self.model, self.data_loader, self.optimizer = model, data_loader, optimizer
        self._batches: Iterator | None = None
        model.train()

    def run_step(self) -> None:
        """Minimise the losses' sum on a batch; FloatingPointError (main process), before any step, if not finite."""
        assert self.model.training, f"{type(self).__name__}: something has put the model into evaluation mode."
        asked = time.perf_counter()
        if self._batches is None:
            self._batches = iter(self.data_loader)
        batch = next(self._batches)
        waited = time.perf_counter() - asked

        with self._forward_context():
            losses = self.model(batch)
            if isinstance(losses, torch.Tensor):
                losses = {"total_loss": losses}
            total = sum(losses.values())
        self.optimizer.zero_grad()
        self._backward(total)
        self.after_backward()
        self.write_metrics(losses, waited, self.iter)
        self._update()

    def _forward_context(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()

    def _backward(self, total: torch.Tensor) -> None:
        total.backward()

    def _update(self) -> None:
        self.optimizer.step()

    @staticmethod
    def write_metrics(loss_dict: Mapping[str, torch.Tensor], data_time: float, cur_iter: int, prefix: str = "") -> None:
        """Let the main process put ``data_time``, each loss and their sum, ``{prefix}total_loss``, into the storage.

        All processes of the job have to call this. Losses (one number each) are means over the processes, ``data_time``
        is the largest, in seconds. A single loss is only written as the sum. FloatingPointError if that is not finite.
        """
        everybodys = comm.gather((data_time, {name: loss.item() for name, loss in loss_dict.items()}))
        if not everybodys:
            return
        waits, losses = zip(*everybodys, strict=True)
        means = {name: statistics.fmean(of_one[name] for of_one in losses) for name in loss_dict}
        total = sum(means.values())
        if not math.isfinite(total):
            terms = ", ".join(f"{name} = {mean:.5g}" for name, mean in means.items())
            raise FloatingPointError(f"The sum of the losses is {total} at iteration={cur_iter}!\n{terms}")
        scalars = {"data_time": max(waits), f"{prefix}total_loss": total} | (means if len(means) > 1 else {})
        get_event_storage().put_scalars(cur_iter=cur_iter, **scalars)

    def state_dict(self) -> dict:
        """Also the optimizer's."""
        return super().state_dict() | {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        """Also the optimizer's."""
        self.optimizer.load_state_dict(state_dict["optimizer"])
        super().load_state_dict(state_dict)


class AMPTrainer(SimpleTrainer):
    """The same in mixed precision, on GPUs: forward in ``precision``, losses scaled by ``grad_scaler``."""

    def __init__(
        self, model, data_loader, optimizer, *, grad_scaler: torch.amp.GradScaler | None = None, precision=torch.float16
    ):
        assert not isinstance(model, torch.nn.DataParallel), "One process can drive one GPU; use one for each."
        super().__init__(model, data_loader, optimizer)
        self.precision = precision
        self.grad_scaler = grad_scaler or torch.amp.GradScaler("cuda")

    def load_state_dict(self, state_dict: dict) -> None:
        """Also the scaler's."""
        self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
        super().load_state_dict(state_dict)

    def state_dict(self) -> dict:
        """Also the scaler's."""
        return super().state_dict() | {"grad_scaler": self.grad_scaler.state_dict()}

    def run_step(self) -> None:
        """See ``SimpleTrainer``; AssertionError without CUDA."""
        assert torch.cuda.is_available(), "CUDA is required for AMP training. On CPUs, set SOLVER.AMP.ENABLED False."
        super().run_step()

    def _forward_context(self) -> contextlib.AbstractContextManager:
        return torch.autocast("cuda", self.precision)

    def _backward(self, total: torch.Tensor) -> None:
        self.grad_scaler.scale(total).backward()

    def _update(self) -> None:
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
