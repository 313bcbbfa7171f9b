"""The whole batch of one update, for losses that see it in micro-batches (gradient accumulation)."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from detectron2.utils.comm import get_world_size
from torch import Tensor

T = TypeVar("T")


class WholeBatch:
    """The images of one update in this process, and the micro-batch that a loss sees now.

    A loss over a micro-batch is scaled so that the *mean* over micro-batches is the loss of the whole batch, as with
    the mean over processes. Random numbers are drawn once, for all images and in the order of the whole batch; each
    micro-batch takes its share. So an update is the same however many micro-batches there are.

    Args:
        labels: for each image of the whole batch, the classes of its targets (n) int64.
        parts: the number of micro-batches, of equal size.
    """

    def __init__(self, labels: Sequence[Tensor], parts: int = 1) -> None:
        self.labels, self.parts = list(labels), parts
        self.first = 0  # the first image of the current micro-batch
        self._kept: dict[str, Any] = {}

    def once(self, name: str, make: Callable[[], T]) -> T:
        """The value of ``make()``, called in the first micro-batch only."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def forget(self, name: str, count: int) -> None:
        """Keep the value of ``once`` no longer if the micro-batch of ``count`` images is the last one."""
        if self.first + count >= len(self.labels):
            self._kept.pop(name, None)

    def images(self, count: int) -> slice:
        """The ``count`` images of the current micro-batch among all images."""
        return slice(self.first, self.first + count)

    def pairs(self, count: int, queries: int) -> slice:
        """The matched pairs of the current micro-batch's ``count`` images among those of all images."""
        start = self.count_pairs(queries, slice(self.first))
        return slice(start, start + self.count_pairs(queries, self.images(count)))

    def count_pairs(self, queries: int, images: slice = slice(None)) -> int:
        """The number of matched pairs of some images: the smaller of queries and targets in each."""
        return sum(min(queries, len(labels)) for labels in self.labels[images])

    def done(self, count: int) -> None:
        """Go on to the next micro-batch, after one of ``count`` images."""
        self.first += count
        if self.first >= len(self.labels):
            self._kept.clear()  # points of masks are large


def mean_of_shares(count: int, number: int, device: torch.device) -> Tensor:
    """The mean of a count over ``number`` shares of a batch; ``count`` is that of all shares of this process.

    All processes call this together. Returns a float scalar.
    """
    total = torch.tensor([float(count)], device=device)
    if get_world_size() > 1:
        dist.all_reduce(total)
    return total / number
