"""The output folder of a training: one job writes to it at a time, and no training is replaced by accident."""

import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from PADing.errors import UserError, refuse
from PADing.files import explain_os_error, replacing

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

LOCK = "training.lock"
CHECKPOINTS = ("last_checkpoint", "model_*.pth")  # what --resume would continue
# Temporary files of ``PADing.files.replacing`` that remain if a process is killed while it writes.
PARTIAL = (".model_*.tmp.pth", ".last_checkpoint.*.tmp")
LOCK_TIMEOUT = 1.0  # seconds to wait, because ``training_in`` holds the lock for a moment

_held: set[int] = set()


@contextmanager
def training_folder(
    folder: str | os.PathLike, resume: bool, overwrite: bool, problems: Sequence[str] = (),
    patience: float = LOCK_TIMEOUT,
) -> Iterator[None]:  # fmt: skip
    """Create ``folder`` and lock it for this training; all processes of a job enter the block together.

    The lock ends with the process, even if it is killed; only the small file ``LOCK`` may remain.

    Args:
        folder: the output folder.
        resume, overwrite: see ``refuse_to_replace``.
        problems: what else this process has found wrong.
        patience: seconds to wait for the end of another training.

    Raises:
        UserError: another training is running there; as ``refuse_to_replace``; the folder cannot be created; any
            process has found problems.
    """
    from detectron2.utils import comm  # imports PyTorch

    with ExitStack() as stack:
        problems = list(problems)
        if comm.is_main_process():
            try:
                stack.enter_context(_lock(Path(folder), patience))
                refuse_to_replace(Path(folder), resume, overwrite)
            except UserError as error:
                problems.append(str(error))
        refuse(list(dict.fromkeys(problem for found in comm.all_gather(problems) for problem in found)))
        yield


def training_in(folder: str | os.PathLike) -> str:
    """The training that is writing to ``folder`` now ("process 12 on a, since ..."); "" if there is none."""
    path = Path(folder, LOCK)
    if fcntl is None or not path.is_file():
        return ""
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.readline().strip() or "another process"
    return ""


@contextmanager
def keeping_config(folder: str | os.PathLike) -> Iterator[None]:
    """Restore ``config.yaml`` of a training at the end of the block, in which an evaluation may replace it."""
    path = Path(folder, "config.yaml")
    if not path.is_file() or not (_checkpoints_in(Path(folder)) or training_in(folder)):
        yield
        return
    content = path.read_bytes()
    try:
        yield
    finally:
        with replacing(path) as temporary:
            temporary.write_bytes(content)


def discard_training(folder: str | os.PathLike) -> None:
    """Remove checkpoints and results of an earlier training, so that they are not taken for those of the new one."""
    for pattern in (*CHECKPOINTS, "results.json"):
        for path in Path(folder).glob(pattern):
            logger.info("Removing %s of the earlier training.", path)
            path.unlink()
    metrics = Path(folder, "metrics.json")
    if metrics.is_file():
        os.truncate(metrics, 0)  # the trainer may have opened it already


def refuse_to_replace(folder: Path, resume: bool, overwrite: bool) -> None:
    """UserError if ``folder`` holds a training and neither flag is set, or if both flags are set."""
    if resume and overwrite:
        raise UserError("--resume continues a training and --overwrite replaces it: choose one of them.")
    found = _checkpoints_in(folder)
    if found and not (resume or overwrite):
        state = "a finished training" if "model_final.pth" in found else "a training"
        cure = "Choose another OUTPUT_DIR, or add --resume to continue that training, or --overwrite to replace it."
        raise UserError(f"OUTPUT_DIR {folder} holds {state} ({found[-1]}). {cure}")


def _checkpoints_in(folder: Path) -> list[str]:
    return sorted(path.name for pattern in CHECKPOINTS for path in folder.glob(pattern))


@contextmanager
def _lock(folder: Path, patience: float = LOCK_TIMEOUT) -> Iterator[None]:
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _take(path, patience)
    except OSError as error:
        raise UserError(f"OUTPUT_DIR: {explain_os_error(folder, error)}") from error
    if handle is None:
        yield
        return
    _held.add(handle)
    try:
        for pattern in PARTIAL:
            for partial in folder.glob(pattern):
                partial.unlink(missing_ok=True)
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        _held.discard(handle)
        os.close(handle)


def _take(path: Path, patience: float) -> int | None:
    """Open and lock a file; None where there are no locks."""
    if fcntl is None:
        return None
    deadline = time.monotonic() + patience
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(handle, 200).decode("utf-8", "replace").strip() or "another process"
            os.close(handle)
            if time.monotonic() > deadline:
                cure = "Choose another OUTPUT_DIR, or wait until it ends."
                problem = f"OUTPUT_DIR {path.parent} is in use: a training is running there ({owner})."
                raise UserError(f"{problem} {cure}") from None
            time.sleep(0.1)
            continue
        except OSError as error:
            os.close(handle)
            logger.warning("%s cannot be locked (%s), so a second training there is not prevented.", path, error)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()}, since {time.ctime()}\n".encode())
                return handle
        os.close(handle)  # the former owner removed this file between opening and locking


def _forget_in_child() -> None:
    # A data-loading worker that survives a killed training must not hold its lock.
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
