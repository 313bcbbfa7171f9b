"""Names of SLURM's nodes: compressed lists such as ``gpu[01-03,07],login``, and addresses."""

import re
import socket
import subprocess
from collections.abc import Iterator

from PADing.errors import UserError

MOST = 65_536  # nodes of a list
SECONDS = 20.0  # for an answer of scontrol
_PART = re.compile(r"\[([^\[\]]*)\]")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def expand_hosts(text: str) -> list[str]:
    """The hosts of a list as SLURM compresses it, in its order; ValueError for another form.

    ``gpu[01-03,07],rack[1-2]n[5-6]`` is gpu01, gpu02, gpu03, gpu07, rack1n5, rack1n6, rack2n5, rack2n6.
    """
    hosts: list[str] = []
    for pattern in _patterns(text):
        for host in _expand(pattern):
            hosts.append(host)
            if len(hosts) > MOST:
                raise ValueError(f"more than {MOST} hosts")
    return hosts


def _patterns(text: str) -> Iterator[str]:
    """The parts between commas outside of brackets."""
    for pattern in re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+|,|.", text):
        if pattern in "[]":
            raise ValueError(f"a bracket without its other in {text!r}")
        if pattern != ",":
            yield pattern
    if not text or text.startswith(",") or text.endswith(",") or ",," in text:
        raise ValueError(f"a host without a name in {text!r}")


def _expand(pattern: str) -> Iterator[str]:
    found = _PART.search(pattern)
    if found is None:
        yield pattern
        return
    before, after = pattern[: found.start()], pattern[found.end() :]
    for part in found[1].split(","):
        numbers = _RANGE.fullmatch(part)
        if numbers is None:
            raise ValueError(f"{part!r} is no number or range")
        first, last = numbers[1], numbers[2] or numbers[1]
        for number in range(int(first), int(last) + 1):
            for rest in _expand(after):
                yield f"{before}{number:0{len(first)}d}{rest}"


def first_host(text: str) -> str:
    """The address of the first host of a compressed list, as this machine can resolve it.

    The host's name, or else the address by which SLURM knows it. UserError if there is none.
    """
    try:
        host = expand_hosts(text)[0]
    except ValueError:
        host = next(iter(_scontrol("hostnames", text).split()), "")
        if not host:
            problem = f"SLURM_STEP_NODELIST is {text!r}, from which the first node cannot be told"
            raise UserError(f"{problem} (nor by scontrol). Set MASTER_ADDR to an address of that node.") from None
    if addresses_of(host):
        return host
    known = re.search(r"\bNodeAddr=(\S+)", _scontrol("node", host))
    if known and addresses_of(known[1]):
        return known[1]
    problem = f"{socket.gethostname()} cannot resolve {host!r}, the first node of the step, where the processes meet"
    raise UserError(f"{problem} (nor the address that scontrol gives). Set MASTER_ADDR to an address of that node.")


def addresses_of(host: str) -> list[tuple[int, str]]:
    """Family and number of each address of a host; empty if it cannot be resolved."""
    try:
        return sorted({(int(family), str(place[0])) for family, *_, place in socket.getaddrinfo(host, None)})
    except (OSError, UnicodeError):
        return []


def _scontrol(*what: str) -> str:
    """What ``scontrol show`` says; "" without scontrol, or if it fails."""
    try:
        done = subprocess.run(["scontrol", "show", *what], capture_output=True, text=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
