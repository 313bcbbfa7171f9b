"""Processes of a case, and mounts that only they see. All of it is Linux's; ``why_not`` says what is missing."""

import ctypes
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

CLONE_NEWNS, MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 1, 32, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def fork(function: Callable[[], int | None], log: Path | None = None) -> int:
    """Run ``function`` in a child, which leads a process group of its own and dies with this process; returns its id.

    Args:
        function: its result is the exit status; an exception is written to the log, and the status is 1.
        log: receives both outputs.
    """
    sys.stdout.flush(), sys.stderr.flush()
    parent = os.getpid()
    if child := os.fork():
        return child
    status = 1
    try:
        os.setpgid(0, 0)
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        if log is not None:
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            os.dup2(file, 1), os.dup2(file, 2), os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.close(file)
        status = function() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        _leave(status)


def _leave(status: int) -> None:
    # What the interpreter does at its end; a standard output that is closed or full changes the status there, too.
    from multiprocessing.util import _exit_function

    try:
        _exit_function()
        sys.stdout.flush()
    except BaseException:
        status = status or 120
    os._exit(status)


def wait(child: int, seconds: float) -> int | None:
    """The exit status of a child, negative for a signal; None, and it is killed, if it takes longer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    kill_group(child)
    os.waitpid(child, 0)
    return None


def kill_group(leader: int) -> None:
    """Kill a child and what it has started."""
    for kill in (os.killpg, os.kill):
        try:
            kill(leader, signal.SIGKILL)
        except ProcessLookupError:
            continue


def members(group: int) -> list[int]:
    """The processes of a group that still run."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                fields = (place / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(place.name))
    return found


def limit_memory(more: int) -> None:
    """Let this process take at most ``more`` bytes of address space beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more,) * 2)


def become(user: int) -> None:
    """Give up the rights of root."""
    os.setgroups([])
    os.setgid(user), os.setuid(user)


def runs_for(user: int) -> bool:
    """Whether another user can run this Python."""

    def attempt() -> None:
        become(user)
        os.execv(sys.executable, [sys.executable, "-c", "import torch"])

    return wait(fork(attempt, Path(os.devnull)), 60) == 0


# ---- mounts


def _mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
    if _libc.mount(source.encode(), os.fsencode(target), kind.encode(), flags, data.encode()):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def private_mounts() -> None:
    """From now on, this process and those that it starts see mounts of their own; OSError without the right to it."""
    if _libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    _mount("none", "/", "", MS_REC | MS_PRIVATE, "")


def small_disk(folder: Path, size: int) -> None:
    """Mount an empty file system of ``size`` bytes at ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("tmpfs", str(folder), "tmpfs", 0, f"size={max(size, 4096)}")


def resize_disk(folder: Path, size: int) -> None:
    """Change the size of a ``small_disk``."""
    _mount("tmpfs", str(folder), "tmpfs", MS_REMOUNT, f"size={size}")


def set_read_only(folder: Path, read_only: bool) -> None:
    """Switch a ``small_disk`` between read-only and writable."""
    _mount("tmpfs", str(folder), "tmpfs", MS_REMOUNT | (MS_RDONLY if read_only else 0), "")


def why_not() -> str:
    """Why mounts cannot be tried here; "" if they can."""
    if sys.platform != "linux":
        return "mounts of a process's own need Linux"

    def attempt() -> int:
        try:
            private_mounts()
            small_disk(Path("/mnt"), 4096)
        except OSError as error:
            print(error)
            return 1
        return 0

    return "" if wait(fork(attempt, Path(os.devnull)), 20) == 0 else "mounting a file system needs root"
