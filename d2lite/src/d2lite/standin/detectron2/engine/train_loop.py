"""The training loop, and the two kinds of one training step: plain, and with automatic mixed precision."""

import logging
import time
import weakref
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import detectron2.utils.comm as comm
import numpy as np
import torch
from detectron2.utils.events import EventStorage, get_event_storage
from torch.nn.parallel import DataParallel, DistributedDataParallel

__all__ = ["HookBase", "TrainerBase", "SimpleTrainer", "AMPTrainer"]


class HookBase:
    """What a trainer calls at fixed moments. Override any of the methods.

    ``self.trainer`` is a weak proxy of the trainer, set by ``register_hooks``. The order of calls is ::

        before_train()
        for each iteration:
            before_step()
            the step itself, with after_backward() between the backward pass and the optimizer's step
            after_step()
        after_train()
    """

    trainer: "TrainerBase" = None

    def before_train(self) -> None:
        """Before the first iteration."""

    def after_train(self) -> None:
        """After the last iteration, or after an exception."""

    def before_step(self) -> None:
        """Before each iteration."""

    def after_backward(self) -> None:
        """After the backward pass of each iteration."""

    def after_step(self) -> None:
        """After each iteration."""

    def state_dict(self) -> dict:
        """What to save in checkpoints. Hooks with a state also define ``load_state_dict``."""
        return {}


class TrainerBase:
    """A loop over iterations with hooks; ``run_step`` is what an iteration does.

    Attributes:
        iter: current iteration; ``max_iter`` after the last one.
        start_iter, max_iter: first iteration, and one past the last.
        storage: the :class:`EventStorage`, during training.
    """

    def __init__(self) -> None:
        self._hooks: list[HookBase] = []
        self.iter: int = 0
        self.start_iter: int = 0
        self.max_iter: int
        self.storage: EventStorage

    def register_hooks(self, hooks: Iterable[HookBase | None]) -> None:
        """Append hooks, which are called in this order; None is skipped."""
        for hook in hooks:
            if hook is None:
                continue
            assert isinstance(hook, HookBase), hook
            # A plain reference would make a cycle, and the trainer's memory would be freed late or never.
            hook.trainer = weakref.proxy(self)
            self._hooks.append(hook)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run the iterations ``start_iter`` .. ``max_iter - 1``. ``after_train`` is called also after an exception."""
        logger = logging.getLogger(__name__)
        logger.info("Starting training from iteration %d", start_iter)
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                while self.iter < max_iter:
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    self.iter += 1
            except Exception:
                logger.exception("Exception during training:")
                raise
            finally:
                self.after_train()

    def before_train(self) -> None:
        for hook in self._hooks:
            hook.before_train()

    def after_train(self) -> None:
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.after_train()

    def before_step(self) -> None:
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.before_step()

    def after_backward(self) -> None:
        for hook in self._hooks:
            hook.after_backward()

    def after_step(self) -> None:
        for hook in self._hooks:
            hook.after_step()

    def run_step(self) -> None:
        """One iteration, without hooks."""
        raise NotImplementedError

    def state_dict(self) -> dict:
        """``iteration``, and under ``hooks`` the state of each hook that has one, by class name."""
        state = {"iteration": self.iter}
        hooks = {}
        for hook in self._hooks:
            hook_state = hook.state_dict()
            if hook_state:
                hooks.setdefault(type(hook).__qualname__, hook_state)
        if hooks:
            state["hooks"] = hooks
        return state

    def load_state_dict(self, state_dict: Mapping) -> None:
        self.iter = state_dict["iteration"]
        for name, hook_state in state_dict.get("hooks", {}).items():
            for hook in self._hooks:
                if type(hook).__qualname__ == name:
                    hook.load_state_dict(hook_state)
                    break
            else:
                logging.getLogger(__name__).warning("Cannot find the hook '%s', its state_dict is ignored.", name)


class SimpleTrainer(TrainerBase):
    """One model, one data source, one optimizer; an iteration is forward, backward, step.

    Args:
        model: called with a batch in training mode; returns a dict of scalar losses, or one scalar.
        data_loader: iterable of batches, without end.
        optimizer: a torch optimizer.
        gather_metric_period: collect metrics from all processes every so many iterations.
        zero_grad_before_forward: clear gradients before the forward pass instead of before the backward pass.
        async_write_metrics: collect and write metrics in a thread.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        data_loader: Iterable,
        optimizer: torch.optim.Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
        async_write_metrics: bool = False,
    ):
        super().__init__()
        model.train()  # after loading weights, and whatever the caller did before
        self.model = model
        self.data_loader = data_loader
        self._data_loader_iter_obj = None
        self.optimizer = optimizer
        self.gather_metric_period = gather_metric_period
        self.zero_grad_before_forward = zero_grad_before_forward
        self.async_write_metrics = async_write_metrics
        # One thread keeps the iterations in order.
        self.concurrent_executor = ThreadPoolExecutor(max_workers=1)

    def run_step(self) -> None:
        assert self.model.training, "[SimpleTrainer] model was changed to eval mode!"
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start

        if self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        losses, loss_dict = self._sum_losses(self.model(data))
        if not self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        losses.backward()
        self.after_backward()
        self._report(loss_dict, data_time)
        self.optimizer.step()

    @staticmethod
    def _sum_losses(output: torch.Tensor | dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if isinstance(output, torch.Tensor):
            return output, {"total_loss": output}
        return sum(output.values()), output

    @property
    def _data_loader_iter(self):
        # Made at the first use, so that a trainer can be built without starting workers.
        if self._data_loader_iter_obj is None:
            self._data_loader_iter_obj = iter(self.data_loader)
        return self._data_loader_iter_obj

    def reset_data_loader(self, data_loader_builder) -> None:
        """Replace the data source by ``data_loader_builder()``; the old one is dropped first."""
        del self.data_loader
        self.data_loader = data_loader_builder()
        self._data_loader_iter_obj = None

    def _report(self, loss_dict: Mapping[str, torch.Tensor], data_time: float) -> None:
        if self.async_write_metrics:
            self.concurrent_executor.submit(self._write_metrics, loss_dict, data_time, iter=self.iter)
        else:
            self._write_metrics(loss_dict, data_time)

    def _write_metrics(
        self, loss_dict: Mapping[str, torch.Tensor], data_time: float, prefix: str = "", iter: int | None = None
    ) -> None:
        iter = self.iter if iter is None else iter
        if (iter + 1) % self.gather_metric_period != 0:
            return
        try:
            SimpleTrainer.write_metrics(loss_dict, data_time, iter, prefix)
        except Exception:
            logging.getLogger(__name__).exception("Exception in writing metrics: ")
            raise

    @staticmethod
    def write_metrics(
        loss_dict: Mapping[str, torch.Tensor], data_time: float, cur_iter: int, prefix: str = ""
    ) -> None:
        """Put the losses, their sum and the data time into the event storage of the main process.

        Args:
            loss_dict: scalar losses of this process; the mean over processes is written.
            data_time: seconds spent waiting for data; the maximum over processes is written.
            cur_iter: the iteration.
            prefix: of the name ``total_loss``.

        Raises:
            FloatingPointError: the sum is not finite.
        """
        metrics = {name: value.detach().cpu().item() for name, value in loss_dict.items()}
        metrics["data_time"] = data_time
        gathered = comm.gather(metrics)
        if not comm.is_main_process():
            return
        storage = get_event_storage()
        storage.put_scalar("data_time", np.max([m.pop("data_time") for m in gathered]), cur_iter=cur_iter)
        means = {name: float(np.mean([m[name] for m in gathered])) for name in gathered[0]}
        total = sum(means.values())
        if not np.isfinite(total):
            raise FloatingPointError(f"Loss became infinite or NaN at iteration={cur_iter}!\nloss_dict = {means}")
        storage.put_scalar(f"{prefix}total_loss", total, cur_iter=cur_iter)
        if len(means) > 1:
            storage.put_scalars(cur_iter=cur_iter, **means)

    def after_train(self) -> None:
        super().after_train()
        self.concurrent_executor.shutdown(wait=True)

    def state_dict(self) -> dict:
        return {**super().state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: Mapping) -> None:
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])


class AMPTrainer(SimpleTrainer):
    """:class:`SimpleTrainer` under autocast, with a gradient scaler. Requires CUDA.

    Args:
        grad_scaler: by default a new ``GradScaler``.
        precision: dtype of autocast.
        log_grad_scaler: put the scale into the event storage as ``[metric]grad_scaler``.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        data_loader: Iterable,
        optimizer: torch.optim.Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
        grad_scaler: "torch.amp.GradScaler | None" = None,
        precision: torch.dtype = torch.float16,
        log_grad_scaler: bool = False,
        async_write_metrics: bool = False,
    ):
        unsupported = "AMPTrainer does not support single-process multi-device training!"
        if isinstance(model, DistributedDataParallel):
            assert not (model.device_ids and len(model.device_ids) > 1), unsupported
        assert not isinstance(model, DataParallel), unsupported
        super().__init__(
            model, data_loader, optimizer, gather_metric_period, zero_grad_before_forward, async_write_metrics
        )
        self.grad_scaler = torch.amp.GradScaler("cuda") if grad_scaler is None else grad_scaler
        self.precision = precision
        self.log_grad_scaler = log_grad_scaler

    def run_step(self) -> None:
        assert self.model.training, "[AMPTrainer] model was changed to eval mode!"
        assert torch.cuda.is_available(), (
            "[AMPTrainer] CUDA is required for AMP training! Set SOLVER.AMP.ENABLED False to train on the CPU."
        )
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start

        if self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        with torch.autocast("cuda", dtype=self.precision):
            losses, loss_dict = self._sum_losses(self.model(data))
        if not self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        self.grad_scaler.scale(losses).backward()
        if self.log_grad_scaler:
            get_event_storage().put_scalar("[metric]grad_scaler", self.grad_scaler.get_scale())
        self.after_backward()
        self._report(loss_dict, data_time)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def state_dict(self) -> dict:
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: Mapping) -> None:
        super().load_state_dict(state_dict)
        self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
