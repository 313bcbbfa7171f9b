"""The processes of a job by name, and what the machine says about those that run on it."""

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ALIVE, STOPPED, GONE, UNKNOWN = "alive", "stopped", "gone", "unknown"


@dataclass(frozen=True)
class Peer:
    """A process of the job.

    Attributes:
        rank: its number in the job.
        host: name of its machine.
        pid: its id there.
        machine: equal for processes that see each other's ids: same boot of one machine, same container. "": unknown.
        started: when it started, as the system writes it; ids are used again.
    """

    rank: int
    host: str
    pid: int
    machine: str = ""
    started: str = ""

    def __str__(self) -> str:
        return f"process {self.rank} (pid {self.pid}, host {self.host})"

    def state(self, watcher: "Peer") -> str:
        """``ALIVE``, ``STOPPED`` (SIGSTOP), ``GONE``, or ``UNKNOWN`` if ``watcher`` is elsewhere or cannot see it."""
        if not self.machine or self.machine != watcher.machine:
            return UNKNOWN
        found = _stat(self.pid)
        if found is None or found[1] != self.started:
            return GONE
        return {"Z": GONE, "X": GONE, "T": STOPPED}.get(found[0], ALIVE)


def this_process(rank: int) -> Peer:
    """The calling process."""
    pid, machine, started = os.getpid(), "", ""
    with suppress(OSError):  # outside Linux there is no /proc
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        found = _stat(pid)
        if found is not None:
            machine, started = f"{boot} {os.readlink('/proc/self/ns/pid')}", found[1]
    return Peer(rank, socket.gethostname(), pid, machine, started)


def _stat(pid: int) -> tuple[str, str] | None:
    """State letter and start time of a process; None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before may have spaces and brackets
    return fields[0], fields[19]
