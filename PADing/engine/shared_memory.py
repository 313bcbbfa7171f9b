"""What to do when the data-loading workers have no room in shared memory: one message."""

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from traceback import walk_tb

from detectron2.config import CfgNode
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from PADing.errors import UserError

PLACE = Path("/dev/shm")
LEAST = 2**20  # bytes, for the locks of the workers and a small image
# In messages of PyTorch, in a worker or about one.
SIGNS = ("shared memory", "is killed by signal: bus error", "file </torch_")


class SharedMemoryFull(UserError):
    """The data-loading workers cannot send what they have loaded."""


def shared_memory_problems(cfg: CfgNode) -> Iterator[str]:
    """One message if workers cannot even start."""
    if cfg.DATALOADER.NUM_WORKERS > 0 and (free := _free()) is not None and free < LEAST:
        yield explain_shared_memory(cfg)


def is_shared_memory_full(error: BaseException) -> bool:
    """Whether an exception says that shared memory could not be had."""
    if isinstance(error, OSError):  # locks are files there; the error has no name then
        free = _free()
        return error.errno == errno.ENOSPC and not error.filename and free is not None and free < LEAST
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


def explain_shared_memory(cfg: CfgNode) -> str:
    """The message for workers without room."""
    workers, free = cfg.DATALOADER.NUM_WORKERS, _free()
    room = f" ({free / 2**20:.1f} MiB are free)" if free is not None else ""
    return (
        f"Shared memory is full: the {workers} data-loading workers send images through {PLACE}{room}. Give a "
        "container more (docker run --shm-size 8g, or --ipc host), or set a smaller DATALOADER.NUM_WORKERS; 0 needs "
        "none."
    )


def end_half_made_loaders(error: BaseException) -> None:
    """End the workers of loaders that ``error`` left half made: PyTorch fails to, with a traceback of its own."""
    for frame, _ in walk_tb(error.__traceback__):
        loader = frame.f_locals.get("self")
        if isinstance(loader, _MultiProcessingDataLoaderIter) and not hasattr(loader, "_workers_status"):
            workers = getattr(loader, "_workers", ())
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.join(timeout=5)
            loader._shutdown = True  # nothing is left to do when it is deleted


def _free() -> int | None:
    try:
        return shutil.disk_usage(PLACE).free
    except OSError:  # another system
        return None
