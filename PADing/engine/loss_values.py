"""The values of losses, for the log, without a GPU that waits for them."""

import math
import socket
from collections.abc import Mapping
from functools import cache

import torch
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor

from PADing.errors import UserError


class Diverged(UserError, FloatingPointError):
    """A loss became infinite or NaN; the message says what to change."""


class LossValues:
    """Losses of one iteration on their way to the log; means over all processes.

    Make it before the backward pass is launched, and log it afterwards: a GPU then copies the values while it computes
    the backward pass, and the program waits for the forward pass alone, not until the GPU has nothing to do.

    Args:
        losses: terms by name, scalars on one device.
        data_time: seconds that the batch took to load; the maximum over processes is logged.
        prefix: of the logged name of the sum.
    """

    def __init__(self, losses: Mapping[str, Tensor], data_time: float, prefix: str = "") -> None:
        self.names, self.data_time, self.prefix = list(losses), data_time, prefix
        self.ready: torch.cuda.Event | None = None
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        if not values.is_cuda:
            self.values = self._over_processes(values)
            return
        # A stream of its own, because the backward pass should not wait for other processes' losses either.
        stream = _stream(values.device)
        stream.wait_stream(torch.cuda.current_stream(values.device))
        with torch.cuda.stream(stream):
            values.record_stream(stream)
            values = self._over_processes(values)
            self.values = torch.empty(values.shape, pin_memory=True).copy_(values, non_blocking=True)
            self.ready = torch.cuda.Event()
            self.ready.record(stream)

    def _over_processes(self, values: Tensor) -> Tensor:
        """The mean of each loss, and the longest time."""
        if comm.get_world_size() == 1:
            return values
        self.own = values.clone()
        # Reduced to all processes, because all must stop if a loss is not finite.
        torch.distributed.all_reduce(values)
        slowest = values.new_full((1,), self.data_time)
        torch.distributed.all_reduce(slowest, op=torch.distributed.ReduceOp.MAX)
        return torch.cat([values / comm.get_world_size(), slowest])

    def log(self) -> None:
        """Log ``data_time``, ``<prefix>total_loss`` and, if there are several terms, each ``<prefix><name>``.

        Raises:
            Diverged: in every process, if a mean is infinite or NaN; the message names the terms.
        """
        if self.ready is not None:
            self.ready.synchronize()
        numbers = self.values.tolist()
        data_time = numbers.pop() if len(numbers) > len(self.names) else self.data_time
        values = {self.prefix + name: value for name, value in zip(self.names, numbers, strict=True)}
        storage = get_event_storage()
        if not all(map(math.isfinite, values.values())):
            terms = ", ".join(f"{name} = {value}" for name, value in values.items() if not math.isfinite(value))
            others = ", ".join(f"{name} = {value:.4g}" for name, value in values.items() if math.isfinite(value))
            message = f"Loss became infinite or NaN at iteration {storage.iter}: {terms}"
            message += f" (others: {others})" if others else ""
            message += _where_not_finite(self.own) if comm.get_world_size() > 1 else ""
            raise Diverged(f"{message}. Lower the learning rate (SOLVER.BASE_LR, GENERATOR_LR), or clip gradients.")
        storage.put_scalar("data_time", data_time)
        storage.put_scalar(f"{self.prefix}total_loss", sum(values.values()))
        for name, value in values.items() if len(values) > 1 else ():
            storage.put_scalar(name, value)


def _where_not_finite(own: Tensor) -> str:
    """The processes of which a loss is infinite or NaN; all processes call this together."""
    everywhere = enumerate(comm.all_gather((bool(own.isfinite().all()), socket.gethostname())))
    return "".join(f", in process {rank} (host {host})" for rank, (finite, host) in everywhere if not finite)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
