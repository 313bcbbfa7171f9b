"""Writes checkpoints beside the training: the state is copied first, and a thread writes the copy.

At most one checkpoint is being written; the next one waits for it. So memory is bounded by one copy of the state.
"""

import copy
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

NOTICED = 1.0  # seconds of waiting from which the log says so


class BackgroundWriter:
    """Runs one function at a time in a thread, and raises its error in the thread that asks.

    ``failed`` and ``wait`` are for one thread, the one that calls ``start``.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, write: Callable[[], None]) -> None:
        """Wait for the function before, then run ``write()``; raises the error of the one before."""
        self.wait()

        def run() -> None:
            try:
                write()
            except BaseException as error:  # raised by ``wait`` or ``check``
                self._error = error

        # Not a daemon: the interpreter waits for it at its end.
        self._thread = threading.Thread(target=run, name="checkpoint", daemon=False)
        self._thread.start()

    def wait(self) -> None:
        """Wait until nothing is being written; raises the error of the last function, once."""
        if self._thread is not None:
            begin = time.monotonic()
            self._thread.join()
            self._thread = None
            if (seconds := time.monotonic() - begin) > NOTICED:
                logger.info("Waited %.1f seconds for the last checkpoint to be written.", seconds)
        self._raise()

    def check(self) -> None:
        """Raise the error of the last function, once, if it has failed; do not wait."""
        if self._thread is not None and not self._thread.is_alive():
            self._thread = None
        if self._thread is None:
            self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error


def copied(content: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a checkpoint's content, with all tensors on the CPU.

    Containers keep their types and attributes, and tensors that share memory share it in the copy, so ``torch.save``
    writes the same as for ``content``.
    """
    memo: dict[int, Any] = {}
    storages: dict[int, torch.UntypedStorage] = {}
    for tensor in _tensors(content):
        # On the CPU, ``deepcopy`` does all this by itself; on a GPU it would take memory there.
        if tensor.device.type != "cpu" and id(tensor) not in memo:
            own = tensor.untyped_storage()
            if own.data_ptr() not in storages:
                storages[own.data_ptr()] = own.cpu()
            twin = torch.empty(0, dtype=tensor.dtype)
            twin.set_(storages[own.data_ptr()], tensor.storage_offset(), tensor.size(), tensor.stride())
            memo[id(tensor)] = twin
    return copy.deepcopy(dict(content), memo)


def _tensors(content: Any) -> Iterator[Tensor]:
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from _tensors(value)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _tensors(value)
