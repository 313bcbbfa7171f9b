"""Counts what the processes of a job send each other, and how long they wait for it."""

import functools
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

GRADIENTS = "gradients"
# Collectives whose first tensor says how many bytes each process has in the result.
FUNCTIONS = ("all_reduce", "broadcast", "all_gather_into_tensor", "reduce_scatter_tensor", "send", "recv")


class Traffic:
    """Bytes, calls and seconds of waiting since the last ``clear``, by the name of what was sent.

    Gradients of ``DistributedDataParallel`` are all-reduced while the backward pass computes. They are waited for from
    the start of the last bucket's all-reduce to the end of the backward pass.
    """

    def __init__(self) -> None:
        self.bytes: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._last = 0.0
        self._all_reduce = distributed.all_reduce  # not the watched one

    def clear(self) -> None:
        """Forget what was counted."""
        self.bytes.clear()
        self.calls.clear()
        self.seconds.clear()

    def watch_gradients(self, model: DistributedDataParallel, recipe: Any) -> None:
        """Count the gradients of a wrapped model, whose backward passes ``recipe.backward`` makes."""

        def hook(group: Any, bucket: distributed.GradBucket):
            # The mean over processes, computed as without a hook.
            tensor = bucket.buffer().div_(distributed.get_world_size())
            self.bytes[GRADIENTS] += tensor.nbytes
            self.calls[GRADIENTS] += 1
            self._last = time.perf_counter()
            return self._all_reduce(tensor, async_op=True).get_future().then(lambda done: done.value()[0])

        model.register_comm_hook(None, hook)
        backward = recipe.backward

        @functools.wraps(backward)
        def timed(*args, **kwargs):
            self._last = 0.0
            backward(*args, **kwargs)
            if self._last:
                self.seconds[GRADIENTS] += time.perf_counter() - self._last

        recipe.backward = timed

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, calls of ``torch.distributed``'s functions are counted."""
        before = {name: getattr(distributed, name) for name in FUNCTIONS}
        for name, function in before.items():
            setattr(distributed, name, self._counted(name, function))
        try:
            yield
        finally:
            for name, function in before.items():
                setattr(distributed, name, function)

    def _counted(self, name: str, function: Callable) -> Callable:
        @functools.wraps(function)
        def counted(tensor: Tensor, *args, **kwargs):
            self.bytes[name] += tensor.nbytes
            self.calls[name] += 1
            with self._waiting(name):
                work = function(tensor, *args, **kwargs)
            return _Timed(self, name, work) if kwargs.get("async_op") else work

        return counted

    @contextmanager
    def _waiting(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start


class _Timed:
    """The handle of an operation under way."""

    def __init__(self, traffic: Traffic, name: str, work: Any):
        self._traffic, self._name, self._work = traffic, name, work

    def wait(self, *args, **kwargs) -> Any:
        """Wait for the operation."""
        with self._traffic._waiting(self._name):
            return self._work.wait(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)
