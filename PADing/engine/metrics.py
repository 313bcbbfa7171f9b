"""Losses of one step: averaged over processes, checked, and handed to Detectron2's writers."""

import math
from collections.abc import Mapping

import torch
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor

from PADing.errors import UserError


class Diverged(UserError, FloatingPointError):
    """The training has left the numbers; what to change is the user's choice."""


def log_losses(losses: Mapping[str, Tensor], data_time: float, prefix: str = "") -> None:
    """Put ``data_time``, ``<prefix>total_loss`` and, when there are several, each ``<prefix><name>`` into the storage.

    Losses are means over all processes, ``data_time`` (seconds) is their maximum.

    Raises:
        Diverged: a mean is infinite or NaN; every process raises, and the message names the terms.
    """
    values, data_time = _reduce(losses, data_time)
    storage = get_event_storage()
    bad = {name: value for name, value in values.items() if not math.isfinite(value)}
    if bad:
        terms = ", ".join(f"{prefix}{name} = {value}" for name, value in bad.items())
        others = ", ".join(f"{prefix}{name} = {value:.4g}" for name, value in values.items() if name not in bad)
        message = f"Loss became infinite or NaN at iteration {storage.iter}: {terms}"
        message += f" (others: {others})" if others else ""
        raise Diverged(f"{message}. Lower the learning rate (SOLVER.BASE_LR, GENERATOR_LR), or clip gradients.")
    storage.put_scalar("data_time", data_time)
    storage.put_scalar(f"{prefix}total_loss", sum(values.values()))
    if len(values) > 1:
        for name, value in values.items():
            storage.put_scalar(prefix + name, value)


def _reduce(losses: Mapping[str, Tensor], data_time: float) -> tuple[dict[str, float], float]:
    stacked = torch.stack([loss.detach().float() for loss in losses.values()])
    if comm.get_world_size() > 1:
        # Summed, not gathered to one process: if a loss is not finite, all processes must stop.
        torch.distributed.all_reduce(stacked)
        stacked /= comm.get_world_size()
        slowest = stacked.new_tensor(data_time)
        torch.distributed.all_reduce(slowest, op=torch.distributed.ReduceOp.MAX)
        data_time = slowest.item()
    return dict(zip(losses, stacked.tolist(), strict=True)), data_time
