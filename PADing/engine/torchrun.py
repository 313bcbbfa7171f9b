"""What a process knows of the torchrun that started it: which one it is, whether it still lives, and a fresh store."""

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from torch.distributed import PrefixStore, Store

RUN_ID = "TORCHELASTIC_RUN_ID"
_POLL = 1.0  # seconds between looks at torchrun
_JOINING = 10.0  # seconds within which every torchrun of a job notices that a machine joins
_ROOM = "PADing/meeting"


def agent() -> str:
    """The torchrun that started this process ("HOST BOOT PID START"), unique in time; "" without torchrun.

    A process that is started again by the same torchrun, for whatever reason, gets the same answer.
    """
    if RUN_ID not in os.environ:
        return ""
    pid = _agent_pid()
    return f"{socket.gethostname()} {_boot()} {pid} {started(pid) or os.environ[RUN_ID]}"


def _agent_pid() -> int:
    """The nearest ancestor whose environment is not a worker's; a worker may be started through a shell script."""
    pid = os.getppid()
    with suppress(OSError, ValueError, IndexError):
        above = pid
        while above > 1:
            if f"{RUN_ID}=".encode() not in b"\0" + Path(f"/proc/{above}/environ").read_bytes():
                return above
            above = int(_after_name(above)[1])
    return pid


def started(pid: int) -> str:
    """When a process of this machine has started (ticks since boot); "" if it is gone, or where there is no /proc."""
    with suppress(OSError, IndexError):
        fields = _after_name(pid)
        return "" if fields[0] in ("Z", "X") else fields[19]
    return ""


def _after_name(pid: int) -> list[str]:
    # The name, in brackets, may contain anything.
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return "-"


@contextmanager
def ending_with_torchrun() -> Iterator[None]:
    """Inside, this process ends when torchrun is gone (killed), so that it holds neither GPU nor output folder.

    The rest of the job then notices that a process is missing.
    """
    over, pid = threading.Event(), _agent_pid()
    start = started(pid)

    def watch() -> None:
        while not over.wait(_POLL):
            if started(pid) != start:
                os.write(2, b"\ntorchrun is gone, so this process ends, too. The last checkpoint is saved.\n")
                os._exit(1)

    if start:
        threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def wait_for_own_signal(stopped: Callable[[], object]) -> None:
    """Before a process ends because *another* one was told to stop: wait a little for its own signal.

    When a machine joins, each torchrun stops its own processes as soon as it notices. A process that ends before would
    count as failed, and cost its torchrun a restart.
    """
    end = time.monotonic() + _JOINING
    while RUN_ID in os.environ and not stopped() and time.monotonic() < end:
        time.sleep(0.05)


def fresh_store(store: Store, rank: int, world_size: int, timeout: timedelta) -> Store:
    """A part of ``store`` that has no keys yet. torchrun's store may still have those of processes that have ended.

    All processes of the job call this together. RuntimeError if one does not come in time.
    """
    room, own, deadline = PrefixStore(_ROOM, store), uuid.uuid4().hex, time.monotonic() + timeout.total_seconds()
    if rank:
        # The first process answers to this word, which nobody has used before.
        room.set(f"here/{rank}", own)
        room.wait([own], timeout)
        place = room.get(own).decode()
        room.add(f"{place}/known", 1)
        return PrefixStore(place, store)
    answered: set[str] = set()
    while room.add(f"{own}/known", 0) < world_size - 1:
        for other in range(1, world_size):
            if room.check([key := f"here/{other}"]) and (word := room.get(key).decode()) not in answered:
                room.set(word, own)
                answered.add(word)
        if time.monotonic() > deadline:
            raise RuntimeError(f"not all of the {world_size} processes of the job have come within {timeout}")
        time.sleep(0.05)
    return PrefixStore(own, store)
