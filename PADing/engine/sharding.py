"""Shares the state of optimizers among processes: stage 1 of ZeRO (Rajbhandari et al., 2020), ``SOLVER.SHARDING``.

Each process keeps the state of its part of the parameters, updates this part, and sends it to the others. Gradients
and parameters are on all of them, so clipping, gradient scaling and averaged weights work as without it.
"""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import Tensor, distributed

logger = logging.getLogger(__name__)

BUCKET = 8 * 2**20  # bytes that are sent at a time
AT_ONCE = 2  # buckets on their way


def shard_optimizers(cfg: CfgNode, optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Share the states of the optimizers among all processes, in place, if ``SOLVER.SHARDING`` says so."""
    if cfg.SOLVER.SHARDING == "none":
        return
    if comm.get_world_size() == 1:
        logger.info("SOLVER.SHARDING has no effect: there is one process, which keeps the whole state.")
        return
    for optimizer in optimizers:
        shard(optimizer)


def shard(optimizer: torch.optim.Optimizer) -> None:
    """Make an optimizer that has not stepped yet share its state among all processes of the job, in place.

    Its update of a parameter may depend on this parameter and its gradient alone, as in all optimizers of PyTorch but
    LBFGS. Its groups and the state dict in the main process are those of the whole optimizer.
    """
    kind = type(optimizer)
    optimizer.__class__ = type(kind.__name__, (_Sharded, kind), {"__module__": kind.__module__})
    assert isinstance(optimizer, _Sharded)
    optimizer.begin()


def gather_states(optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Collect the states of shared optimizers in the main process, until their next step; all processes call this."""
    for optimizer in optimizers:
        if isinstance(optimizer, _Sharded):
            optimizer.gather()


def parts_of(sizes: list[int], number: int) -> list[int]:
    """For each size the part, from 0 to ``number - 1``, so that sums are about equal: largest first, to the least."""
    sums, found = [0] * number, [0] * len(sizes)
    for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        found[index] = min(range(number), key=lambda part: (sums[part], part))
        sums[found[index]] += sizes[index]
    return found


class _Sharded(torch.optim.Optimizer):
    """Mixed into the class of an optimizer, before it."""

    _others: dict[int, dict[str, Any]] | None  # in the main process: states of the other processes, by parameter

    def begin(self) -> None:
        """Deal out the parameters."""
        self._rank, number = comm.get_rank(), comm.get_world_size()
        self._parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        self._owners = parts_of([parameter.numel() for parameter in self._parameters], number)
        self._own = {p for p, owner in zip(self._parameters, self._owners, strict=True) if owner == self._rank}
        self._buckets = [bucket for owner in range(number) for bucket in self._buckets_of(owner)]
        self._others = {} if self._rank == 0 else None

    def _buckets_of(self, owner: int) -> Iterator[tuple[int, list[Tensor]]]:
        bucket: list[Tensor] = []
        size = 0
        for parameter, who in zip(self._parameters, self._owners, strict=True):
            if who != owner:
                continue
            alike = not bucket or (bucket[0].dtype, bucket[0].device) == (parameter.dtype, parameter.device)
            if bucket and (not alike or size + parameter.nbytes > BUCKET):
                yield owner, bucket
                bucket, size = [], 0
            bucket.append(parameter)
            size += parameter.nbytes
        if bucket:
            yield owner, bucket

    def step(self, closure=None):
        """Update the own parameters, and get the others; see ``torch.optim.Optimizer.step``."""
        self._others = None
        groups = self.param_groups
        whole = [group["params"] for group in groups]
        for group in groups:
            group["params"] = [parameter for parameter in group["params"] if parameter in self._own]
        self.param_groups = [group for group in groups if group["params"]]
        try:
            result = super().step(closure)
        finally:
            self.param_groups = groups
            for group, parameters in zip(groups, whole, strict=True):
                group["params"] = parameters
        self._exchange()
        return result

    @torch.no_grad()
    def _exchange(self) -> None:
        """Send the own parameters to all, and copy those of the others."""
        waiting: list[tuple[Any, int, Tensor, list[Tensor]]] = []
        for owner, bucket in self._buckets:
            if owner == self._rank:
                flat = torch.cat([parameter.reshape(-1) for parameter in bucket])
            else:
                flat = bucket[0].new_empty(sum(parameter.numel() for parameter in bucket))
            waiting.append((distributed.broadcast(flat, owner, async_op=True), owner, flat, bucket))
            if len(waiting) == AT_ONCE:
                self._received(*waiting.pop(0))
        for arrival in waiting:
            self._received(*arrival)

    def _received(self, work: Any, owner: int, flat: Tensor, bucket: list[Tensor]) -> None:
        work.wait()
        if owner != self._rank:
            pieces = flat.split([parameter.numel() for parameter in bucket])
            for parameter, piece in zip(bucket, pieces, strict=True):
                parameter.copy_(piece.view(parameter.shape))

    def gather(self) -> None:
        """Collect the states of all processes in the first one, in main memory, tensor by tensor."""
        # Small values travel together, large tensors one after another, so that none but the first needs more memory.
        own = {index: self.state[p] for index, p in enumerate(self._parameters) if p in self._own and p in self.state}
        described = {index: {name: _Large.of(value) for name, value in state.items()} for index, state in own.items()}
        everyone = comm.gather(described if self._rank else {})
        if self._rank:
            for state in own.values():
                for value in state.values():
                    if _Large.fits(value):
                        distributed.send(value.detach().contiguous(), 0)
            return
        self._others = {}
        for rank, states in enumerate(everyone):
            for index, state in states.items():
                device = self._parameters[index].device
                self._others[index] = {
                    name: value.receive(rank, device) if isinstance(value, _Large) else value
                    for name, value in state.items()
                }

    def state_dict(self) -> dict[str, Any]:
        """The layout of the whole optimizer; in the main process with the states of all, after ``gather_states``.

        RuntimeError there, if steps were made since: the states of the other processes would be lost.
        """
        found = super().state_dict()
        if self._rank == 0:
            if self._others is None:
                raise RuntimeError("gather_states() must be called in all processes before the state is saved")
            found["state"] = dict(sorted({**found["state"], **self._others}.items()))
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the own part of the state of a whole optimizer, of any number of processes."""
        elsewhere = {index for index, owner in enumerate(self._owners) if owner != self._rank}
        states = state_dict["state"]
        super().load_state_dict({**state_dict, "state": {i: s for i, s in states.items() if i not in elsewhere}})
        # Until the next step, a checkpoint can be written again.
        self._others = {i: s for i, s in states.items() if i in elsewhere} if self._rank == 0 else None


class _Large:
    """Stands for a tensor that is sent by itself."""

    def __init__(self, shape: torch.Size, dtype: torch.dtype):
        self.shape, self.dtype = shape, dtype

    @staticmethod
    def fits(value: Any) -> bool:
        return isinstance(value, Tensor) and value.numel() > 1

    @classmethod
    def of(cls, value: Any) -> Any:
        """What to send first in place of a value of a state."""
        if cls.fits(value):
            return cls(value.shape, value.dtype)
        return value.cpu() if isinstance(value, Tensor) else value  # else it arrives on the sender's GPU

    def receive(self, rank: int, device: torch.device) -> Tensor:
        """The tensor, from another process, in main memory."""
        value = torch.empty(self.shape, dtype=self.dtype, device=device)
        distributed.recv(value, rank)
        return value.cpu()
