"""Machines for tests: network namespaces of this computer, joined by a bridge, each with an address and a host name.

They need root and the command ``ip`` (Debian: iproute2); ``missing()`` says what is not there. Nothing outside is
touched: the bridge is in a namespace of its own, too.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress


def missing() -> str:
    """Why this computer cannot have such machines; "" if it can."""
    for command in ("ip", "unshare"):
        if shutil.which(command) is None:
            return f"the command {command} is missing (Debian: iproute2, util-linux)"
    name = f"pading-try-{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if tried.returncode:
        return f"network namespaces are not allowed here: {tried.stderr.strip()}"
    tried = subprocess.run(["ip", "-n", name, "link", "add", "veth0", "type", "veth", "peer", "name", "veth1"],
                           capture_output=True, text=True)  # fmt: skip
    subprocess.run(["ip", "netns", "delete", name], capture_output=True)
    return f"virtual network devices are not allowed here: {tried.stderr.strip()}" if tried.returncode else ""


class NoDelayError(RuntimeError):
    """The system cannot delay packets."""


class Machines:
    """``count`` machines at 10.77.0.1, 10.77.0.2, ...; to be used in a ``with`` statement.

    Attributes:
        addresses: of the machines.
        delay: what each adds to a packet, as of ``tc netem`` ("20ms"); "": nothing.
    """

    def __init__(self, count: int, delay: str = ""):
        self.addresses = [f"10.77.0.{i + 1}" for i in range(count)]
        self.delay = delay
        self._hub = f"pading-{os.getpid()}-hub"
        self._names = [f"pading-{os.getpid()}-{i}" for i in range(count)]
        self.processes: list[subprocess.Popen] = []

    def __enter__(self) -> "Machines":
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _build(self) -> None:
        self._hosts = tempfile.NamedTemporaryFile("w", prefix="hosts-")
        self._hosts.write("127.0.0.1 localhost\n")
        self._hosts.writelines(f"{address} machine{i + 1}\n" for i, address in enumerate(self.addresses))
        self._hosts.flush()
        _ip("netns", "add", self._hub)
        _ip("-n", self._hub, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._hub, "link", "set", "bridge", "up")
        for i, (name, address) in enumerate(zip(self._names, self.addresses, strict=True)):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", f"port{i}", "netns", self._hub)
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", self._hub, "link", "set", f"port{i}", "master", "bridge", "up")
            if self.delay:
                netem = ["tc", "qdisc", "add", "dev", "eth0", "root", "netem", "delay", self.delay]
                done = subprocess.run(["ip", "netns", "exec", name, *netem], capture_output=True, text=True)
                if done.returncode:
                    raise NoDelayError(f"packets cannot be delayed here (tc netem): {done.stderr.strip()}")

    def start(self, number: int, command: Sequence[str], **options) -> subprocess.Popen:
        """Start a command on a machine, in a session of its own; ``options`` as of ``Popen``."""
        # A host name of its own, which all machines can resolve.
        script = 'hostname "$0" && mount --bind "$1" /etc/hosts && shift && exec "$@"'
        named = ["unshare", "--uts", "--mount", "sh", "-c", script, f"machine{number + 1}", self._hosts.name, *command]
        command = ["ip", "netns", "exec", self._names[number], *named]
        process = subprocess.Popen(command, start_new_session=True, **options)
        self.processes.append(process)
        return process

    def running(self, number: int) -> list[int]:
        """The processes on a machine."""
        found = subprocess.run(["ip", "netns", "pids", self._names[number]], capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def cut(self, number: int) -> None:
        """Take a machine from the network."""
        _ip("-n", self._hub, "link", "set", f"port{number}", "down")

    def __exit__(self, *_) -> None:
        for number, name in enumerate([*self._names, self._hub]):
            for pid in self.running(number) if name != self._hub else ():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()
        for name in [*self._names, self._hub]:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
