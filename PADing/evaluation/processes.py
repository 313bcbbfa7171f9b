"""Work that the processes of an evaluation share: agreement on mistakes, and results that travel in small parts.

Parts are pickled, as by the collectives for objects of ``torch.distributed``: what arrives was sent by a process of the
same job, which runs the same code. Nothing that is unpickled comes from a file.
"""

import functools
import pickle
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from detectron2.utils import comm

from PADing.errors import UserError

T = TypeVar("T")
# A process may score its images for hours before it meets the others.
WAIT = timedelta(hours=6)
PART = 4 * 2**20  # bytes of a message
AHEAD = 16  # messages that a process prepares before its turn comes
ITEMS = 200  # picklable objects in a message
_GO, _STOP = 1, 0
_END, _FAILED = -1, -2
# Weak: a group of gloo that is kept beyond ``destroy_process_group`` aborts the process at its end now and then.
_GLOO_GROUPS: weakref.WeakKeyDictionary[Any, weakref.ref[Any]] = weakref.WeakKeyDictionary()


class _Stopped(Exception):
    """Another process has failed in the middle of an exchange."""


class Processes:
    """The processes among which an evaluation is split. All of them call the same methods in the same order.

    Args:
        distributed: False: the calling process is the only one.

    Attributes:
        rank, size: number of this process, and of all.
    """

    def __init__(self, distributed: bool):
        self.size = comm.get_world_size() if distributed else 1
        self.rank = comm.get_rank() if distributed else 0
        # NCCL sends what is on GPUs only.
        self._group = _gloo_group(dist.group.WORLD) if self.size > 1 else None

    @property
    def is_main(self) -> bool:
        """Whether this process puts the results together."""
        return self.rank == 0

    def all(self, value: T) -> list[T]:
        """The values of all processes by rank, in each of them. They should be small."""
        return comm.all_gather(value, self._group) if self.size > 1 else [value]

    def agreed(self, function: Callable[..., T], *args: Any) -> T:
        """``function(*args)`` in each process.

        Raises:
            UserError: in all processes, the first one (by rank) that the function has raised in any.
        """
        result: Any = None
        problem, error = "", None
        try:
            result = function(*args)
        except _Stopped:
            pass  # the process that has failed says more
        except UserError as mistake:
            problem, error = str(mistake), mistake
        problems = [text for text in self.all(problem) if text]
        if error is not None and problem == problems[0]:
            raise error
        if problems:
            raise UserError(problems[0])
        return result

    def on_main(self, function: Callable[..., T], *args: Any) -> T | None:
        """``function(*args)`` in the main process; None in the others. Its UserError is raised in all."""
        return self.agreed(lambda: function(*args) if self.is_main else None)

    def in_order(self, messages: Iterable[bytes], use: Callable[[Iterator[bytes]], T]) -> T | None:
        """``use`` in the main process, with the messages of all processes by rank; None in the others.

        Only a few messages are in memory at a time. UserError in all processes if making or using them raises one.
        """
        return self.agreed(self._in_order, iter(messages), use)

    def _in_order(self, messages: Iterator[bytes], use: Callable[[Iterator[bytes]], T]) -> T | None:
        if self.size == 1:
            return use(messages)
        if not self.is_main:
            self._send(messages)
            return None
        turns = iter(range(1, self.size))
        received = self._received(messages, turns)
        try:
            result = use(received)
            for _ in received:
                pass  # what ``use`` has left
            return result
        except BaseException:
            received.close()
            for rank in turns:
                self._tell(_STOP, rank)
            raise

    def _received(self, own: Iterator[bytes], turns: Iterator[int]) -> Generator[bytes, None, None]:
        yield from own
        for rank in turns:
            told = _GO
            try:
                while True:
                    self._tell(_GO, rank)
                    length = self._hear(rank)
                    if length < 0:
                        told = _STOP  # it expects no further word
                        break
                    message = torch.empty(length, dtype=torch.uint8)
                    dist.recv(message, rank, self._group)
                    yield message.numpy().tobytes()
            except GeneratorExit:
                if told == _GO:
                    self._tell(_STOP, rank)
                raise
            if length == _FAILED:
                raise _Stopped

    def _send(self, messages: Iterator[bytes]) -> None:
        try:
            ready = list(islice(messages, AHEAD))  # while others have their turn
        except Exception:
            if self._hear(0) == _GO:
                self._tell(_FAILED, 0)
            raise
        while self._hear(0) == _GO:
            if not ready:
                try:
                    ready = list(islice(messages, 1))
                except Exception:
                    self._tell(_FAILED, 0)
                    raise
            if not ready:
                return self._tell(_END, 0)
            message = ready.pop(0)
            self._tell(len(message), 0)
            dist.send(torch.frombuffer(bytearray(message), dtype=torch.uint8), 0, self._group)
        raise _Stopped

    def _tell(self, number: int, rank: int) -> None:
        dist.send(torch.tensor([number]), rank, self._group)

    def _hear(self, rank: int) -> int:
        number = torch.zeros(1, dtype=torch.int64)
        dist.recv(number, rank, self._group)
        return int(number)

    def items(self, items: Iterable[T], number: int = ITEMS) -> list[T] | None:
        """Picklable items of all processes, by rank, in the main one; None in the others. ``number`` in a message."""
        if self.size == 1:
            return list(items)
        rest = iter(items)
        parts = iter(lambda: list(islice(rest, number)), [])
        # Safe to unpickle: the bytes come from a process of this job, through its own process group.
        return self.in_order(map(pickle.dumps, parts), lambda parts: [i for part in parts for i in pickle.loads(part)])

    def total(self, array: np.ndarray) -> np.ndarray | None:
        """The sum over all processes, in the main one; None in the others."""
        return self.in_order([pickle.dumps(array)], lambda parts: functools.reduce(np.add, map(pickle.loads, parts)))

    def arrays(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray] | None:
        """For arrays of equal length: those of all processes, joined by rank, in the main one; None in the others."""
        if self.size == 1:
            return list(arrays)
        width = sum(array.itemsize * int(np.prod(array.shape[1:])) for array in arrays)
        rows = max(1, PART // width)
        starts = range(0, max(len(arrays[0]), 1), rows)  # an empty part has the types, too
        parts = self.items(([array[start : start + rows] for array in arrays] for start in starts), number=1)
        return None if parts is None else [np.concatenate(column) for column in zip(*parts, strict=True)]


def packed(texts: Iterable[bytes], separator: bytes) -> Iterator[bytes]:
    """Join texts to messages of about ``PART`` bytes; joined by the separator again, these have all texts."""
    part: list[bytes] = []
    size = 0
    for text in texts:
        part.append(text)
        size += len(text) + len(separator)
        if size >= PART:
            yield separator.join(part)
            part, size = [], 0
    if part:
        yield separator.join(part)


def _gloo_group(world: Any) -> Any:
    if dist.get_backend(world) == "gloo":
        return world
    made = _GLOO_GROUPS.get(world)
    group = made() if made else None
    if group is None:
        group = dist.new_group(backend="gloo", timeout=WAIT)
        _GLOO_GROUPS[world] = weakref.ref(group)
    return group
