"""Spoiled files: each is read as something valid, or refused in one message; none hangs or fills the memory."""

from collections.abc import Iterator
from pathlib import Path

from tests.faults.battery import Case
from tests.faults.readers import READERS, Reader
from tests.faults.targets import Workplace
from tests.mutations import mutant, survives

MEMORY = 3 * 2**30
SECONDS = 20


def cases(place: Workplace, seed: int, scale: float = 1) -> Iterator[Case]:
    for kind, (count, prepare) in READERS.items():
        for number in range(max(1, round(count * scale))):
            yield Case(
                f"inputs/{kind}/{number:04d}",
                lambda _, reader, n=number: _read(reader, n, seed),
                seconds=SECONDS,
                group=f"inputs/{kind}",
                begin=lambda folder, p=prepare: _begin(p, folder),
                memory=MEMORY,
            )


def _begin(prepare, folder: Path) -> tuple[Reader, bytes]:
    import logging

    logging.disable(logging.CRITICAL)
    reader = prepare(folder)
    reader.use()  # the good file
    return reader, reader.path.read_bytes()


def _read(context: tuple[Reader, bytes], number: int, seed: int) -> str:
    reader, good = context
    try:
        reader.path.write_bytes(mutant(good, reader.kind, number, seed))
        valid = survives(reader.use, f"mutant {number} of {reader.path.name} ({reader.kind}, seed {seed})")
    finally:
        reader.path.write_bytes(good)
    return "valid" if valid else "refused"
