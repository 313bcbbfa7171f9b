"""Faults of disks and files."""

from collections.abc import Iterator

from tests.faults import damage, disk, disturbance
from tests.faults.battery import Case
from tests.faults.targets import Workplace


def cases(place: Workplace, seed: int, scale: float = 1) -> Iterator[Case]:
    for module in (disk, damage, disturbance):
        yield from module.cases(place, seed, scale)
