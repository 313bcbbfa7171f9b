"""The shares of a batch: equal parts, each computed as if by a process of its own, by whichever process there is.

A training with S shares computes what S processes compute: each share has its own images, random generators and losses,
and the gradient is the mean over shares. The number of processes only decides who computes which share. So a training
goes on unchanged, but for the rounding of sums, when processes are lost or join.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import Tensor, nn

from PADing.engine.rng import preserved_rng, rng_state, set_rng_state
from PADing.meta_arch.contract import contract_of

logger = logging.getLogger(__name__)

T = TypeVar("T")
# Gradients are added over processes in pieces of so many numbers.
_PIECE = 2**23


class Shares:
    """The shares of every batch, and which of them this process computes: neighbours, as evenly as possible.

    Attributes:
        number: of all shares; at least the number of processes.
        own: the shares of this process, a range.
        one_each: whether every process has one share. Then ``DistributedDataParallel`` does all the work.
        generators: the state of the random generators of each own share; unused if ``one_each``.

    Args:
        number: of all shares; None: one for each process.
        rank, world: this process and their number; None: those of the job.
    """

    def __init__(self, number: int | None = None, rank: int | None = None, world: int | None = None) -> None:
        self.world = comm.get_world_size() if world is None else world
        self.number = self.world if number is None else number
        rank = comm.get_rank() if rank is None else rank
        mine = [share for share in range(self.number) if share * self.world // self.number == rank]
        self.own = range(mine[0], mine[-1] + 1)
        self.one_each = self.number == self.world
        self.generators: list[dict[str, Any]] = []

    def each(self, model: nn.Module, items: Sequence[T]) -> Iterator[T]:
        """The items of the own shares; the caller computes with one while its share's generators are in use.

        Buffers of the model, such as the running statistics of batch normalization, keep what the first of the shares
        has made of them. So those of the first process, which are in checkpoints, are always those of share 0.
        """
        kept: list[tuple[Tensor, Tensor]] = []
        with preserved_rng():
            try:
                for place, item in enumerate(items):
                    if place == 1:
                        kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
                    set_rng_state(self.generators[place])
                    yield item
                    self.generators[place] = rng_state()
            finally:
                with torch.no_grad():
                    for buffer, value in kept:
                        buffer.copy_(value)

    @contextmanager
    def together(self, model: nn.Module, batches: Sequence[list[dict]]) -> Iterator[None]:
        """Inside the block, ``model`` knows the batches of the own shares; all processes enter it together."""
        contract = contract_of(model)
        contract.begin_shares(batches, self.number)
        try:
            yield
        finally:
            contract.begin_shares((), 0)

    @torch.no_grad()
    def add_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Add the gradients of an optimizer's parameters over processes; all processes call this together.

        A parameter that has no gradient in any process has none afterwards.
        """
        if self.world == 1:
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        has = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=parameters[0].device)
        dist.all_reduce(has, op=dist.ReduceOp.MAX)
        used = [p for p, there in zip(parameters, has.tolist(), strict=True) if there]
        for p in used:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        for piece in _pieces([p.grad for p in used if p.grad is not None]):
            flat = torch.cat([grad.flatten() for grad in piece])
            dist.all_reduce(flat)
            for grad, total in zip(piece, flat.split([grad.numel() for grad in piece]), strict=True):
                grad.copy_(total.view_as(grad))


def _pieces(grads: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The gradients in order, in lists of one type and of about ``_PIECE`` numbers."""
    piece: list[Tensor] = []
    for grad in grads:
        if piece and (grad.dtype != piece[0].dtype or sum(g.numel() for g in piece) + grad.numel() > _PIECE):
            yield piece
            piece = []
        piece.append(grad)
    if piece:
        yield piece


def share_number(images: int, processes: int, least: int = 1, parts: int = 1) -> int:
    """How many shares a batch has: the smallest number, not below processes and ``least``, that splits it evenly.

    ``parts`` is the number of micro-batches of each share. 0 if there is no such number.
    """
    first, last = max(processes, least, 1), images // max(parts, 1)
    return next((number for number in range(first, last + 1) if images % (number * parts) == 0), 0)


def takes_shares(recipe: type) -> bool:
    """Whether recipes of a class compute several shares in one process: ``step_shares`` belongs to their ``step``."""
    for kind in recipe.__mro__:
        if "step_shares" in vars(kind) or "step" in vars(kind):
            return "step_shares" in vars(kind)
    return False


def choose_shares(solver: CfgNode, recipe: type, model: nn.Module, streamed: bool, least: int) -> Shares:
    """How to split the batches of a training.

    Args:
        solver: ``cfg.SOLVER``.
        recipe: the class of the recipe.
        model: the model; if its batch normalization exchanges statistics, all processes compute the same number.
        streamed: whether the data loader is a ``StreamLoader``.
        least: the number of shares that the training has had before, or should have at least.
    """
    synchronized = any("SyncBatchNorm" in type(module).__name__ for module in model.modules())
    if not (takes_shares(recipe) and streamed) or solver.REFERENCE_WORLD_SIZE > 0 or synchronized:
        return Shares()
    images, processes, parts = solver.IMS_PER_BATCH, comm.get_world_size(), solver.ACCUMULATE
    number = share_number(images, processes, max(solver.SHARES, least), parts)
    shares = Shares(number or share_number(images, processes, parts=parts) or None)
    if not shares.one_each:
        logger.info("Each batch has %d shares of %d image(s), which %d process(es) compute one after another.",
                    shares.number, images // shares.number, processes)  # fmt: skip
    return shares
