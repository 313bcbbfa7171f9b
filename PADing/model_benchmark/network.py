"""How long the gradients of a step travel, computed from their size and from published bandwidths."""

from collections.abc import Sequence
from dataclasses import dataclass

GB = 1e9


@dataclass(frozen=True)
class Link:
    """A connection: bytes per second in one direction, and seconds until the first byte arrives."""

    name: str
    bandwidth: float
    latency: float = 5e-6


# Of one GPU to the others of its machine, and of one machine to the others; sources are in docs/scaling.md.
INSIDE = (
    Link("NVLink 4 (H100, NVSwitch)", 450 * GB),
    Link("PCIe 4.0 x16", 31.5 * GB),
)
BETWEEN = (
    Link("100 Gb/s", 12.5 * GB, 10e-6),
    Link("200 Gb/s", 25 * GB, 10e-6),
    Link("400 Gb/s", 50 * GB, 10e-6),
)
SHARE = 0.8  # of the published bandwidth that an all-reduce reaches


def all_reduce_seconds(size: float, members: int, link: Link, calls: int = 1) -> float:
    """Time of a ring all-reduce of ``size`` bytes in ``calls`` parts: each member sends 2 (n - 1) / n of them."""
    steps = 2 * (members - 1)
    return steps / members * size / (SHARE * link.bandwidth) + calls * steps * link.latency


def job_seconds(size: float, gpus: int, machines: int, inside: Link, between: Link, calls: int = 1) -> float:
    """Time of the all-reduce of a job: in each machine first, then between machines with one network card each.

    In a machine, every GPU reduces a part of the gradients, and in the end gathers all parts: a ring all-reduce.
    Between machines, all parts together are ``size`` bytes, which pass the card of each machine.
    """
    seconds = all_reduce_seconds(size, gpus, inside, calls)
    return seconds + (all_reduce_seconds(size, machines, between, calls) if machines > 1 else 0.0)


def efficiency(step: float, communication: float, hidden: float = 0.0) -> float:
    """The share of a step that computes.

    Args:
        step: seconds of a step of one GPU alone, above 0.
        communication: seconds of the all-reduce.
        hidden: seconds of it that pass while the backward pass computes.
    """
    return step / (step + max(communication - hidden, 0.0))


def rows(size: float, step: float, calls: int, jobs: Sequence[tuple[int, int]] = ((8, 1), (8, 4))) -> list[list[str]]:
    """A row for each job (GPUs in a machine, machines) and each pair of links.

    Columns: job, links, milliseconds of communication, and the share of a step that computes if nothing is hidden, and
    if half of a backward pass (a third of the step) hides communication.
    """
    found = []
    for gpus, machines in jobs:
        for inside in INSIDE:
            for between in BETWEEN if machines > 1 else BETWEEN[:1]:
                seconds = job_seconds(size, gpus, machines, inside, between, calls)
                links = f"{inside.name}; {between.name}" if machines > 1 else inside.name
                shares = [efficiency(step, seconds), efficiency(step, seconds, step / 3)]
                job = f"{machines} x {gpus}" if machines > 1 else f"{gpus}"
                found.append([job, links, f"{1000 * seconds:.1f}", *(f"{100 * share:.1f} %" for share in shares)])
    return found
