"""Disks that are full, too small for a file, or read-only. The command says so, and goes on when that is over."""

import os
import random
import resource
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.faults import children
from tests.faults.battery import Case, Skip
from tests.faults.commands import Plan
from tests.faults.targets import Workplace, leftovers

FULL = {"pretraining": 8, "d2zero": 6, "checkpoints": 6, "evaluation": 5, "data": 5}
LIMITED = {"pretraining": 4, "evaluation": 2, "data": 2, "converted": 2}
READ_ONLY = ("pretraining", "d2zero", "evaluation", "data", "converted")
FORBIDDEN = {"pretraining": 4, "evaluation": 2, "data": 2}
NOBODY = 65534
cannot_mount = cache(children.why_not)


def cases(place: Workplace, seed: int, scale: float = 1) -> Iterator[Case]:
    for kind, function, counts in (
        ("full", _full, FULL),
        ("limit", _limited, LIMITED),
        ("readonly", _read_only, dict.fromkeys(READ_ONLY, 1)),
        ("forbidden", _forbidden, FORBIDDEN),
    ):
        for target, count in counts.items():
            for number in range(max(1, round(count * scale))):
                name = f"files/{kind}/{target}-{number:02d}"
                yield Case(
                    name,
                    lambda folder, _, f=function, t=target, n=name: f(place, t, folder, random.Random(f"{seed} {n}")),
                )


def _need(place: Workplace, target: str) -> int:
    return sum(path.stat().st_size for path in place.reference(target).rglob("*") if path.is_file())


def _mounts() -> None:
    if reason := cannot_mount():
        raise Skip(reason)
    children.private_mounts()


def _full(place: Workplace, target: str, folder: Path, rng: random.Random) -> str:
    """The disk is full at a random place; then there is room."""
    need, disk = _need(place, target), folder / "disk"
    _mounts()
    size = int(rng.uniform(0.02, 1.02) * need)
    children.small_disk(disk, size)
    out = disk / "out"
    run = place.start(target, out, log="full", logs=folder)
    if (status := run.end()) == 0:
        note = "it had room enough"
    else:
        assert status == 2, f"with {size} bytes, status {status}: {run.tail()}"
        note = run.refuse_ended("Disk full")
    children.resize_disk(disk, 50 * need + 2**24)
    place.start(target, out, again=True, log="again", logs=folder).succeed()
    place.assert_equal(target, out)
    assert not (left := leftovers(disk)), f"these remain: {left[:5]}"
    return f"{size} bytes: {note}"


def _limited(place: Workplace, target: str, folder: Path, rng: random.Random) -> str:
    """No file may be larger than some size, as by a quota; Python ignores the signal that comes with it."""
    largest = max(path.stat().st_size for path in place.reference(target).rglob("*") if path.is_file())
    least = 1000 if target in ("data", "converted") else 40_000  # the log is a file, too
    size, out = rng.randrange(least, max(largest, 60_000)), folder / "out"
    run = place.start(
        target, out, log="limited", before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    )
    status = run.end()
    if status:
        assert status == 2, f"with {size} bytes a file, status {status}: {run.tail()}"
        run.refuse_ended("cannot be written", "Disk full", "File too large")
    place.start(target, out, again=True).succeed()
    place.assert_equal(target, out)
    assert not (left := leftovers(folder)), f"these remain: {left[:5]}"
    return f"at most {size} bytes a file"


def _read_only(place: Workplace, target: str, folder: Path, rng: random.Random) -> str:
    """The output folder lies on a disk that was mounted read-only."""
    place.reference(target)
    _mounts()
    disk = folder / "disk"
    children.small_disk(disk, 2**26)
    if rng.random() < 0.5:
        (disk / "out").mkdir()
    children.set_read_only(disk, True)
    message = place.start(target, disk / "out", log="readonly", logs=folder).refuse("cannot be", "no permission")
    children.set_read_only(disk, False)
    place.start(target, disk / "out", log="again", logs=folder).succeed()
    place.assert_equal(target, disk / "out")
    return message[:150]


def _forbidden(place: Workplace, target: str, folder: Path, rng: random.Random) -> str:
    """A user without the right to write: from the beginning, or from some moment on."""
    if os.geteuid() or not children.runs_for(NOBODY):
        raise Skip("it needs root, and a Python that every user may read")
    place.reference(target)
    home = folder / "home"
    for path in (folder, home):
        path.mkdir(exist_ok=True)
        os.chown(path, NOBODY, NOBODY)
    out = home / "out"
    later = rng.random() < 0.7 and target != "data"
    if later:
        out.mkdir()
        os.chown(out, NOBODY, NOBODY)
        # The user's own folder, whose mode a colleague's script has changed.
        plan = Plan(rng.randrange(2, len(place.operations(target))), act=lambda: os.chmod(out, 0o555))
    else:
        os.chmod(home, 0o555)
        plan = None

    def become_nobody() -> None:
        children.become(NOBODY)
        os.environ["HOME"] = "/nonexistent"

    run = place.start(target, out, log="forbidden", logs=folder, plan=plan, watch=out, before=become_nobody)
    if run.end():
        note = run.refuse_ended("cannot be", "Permission denied", "no permission to write")
    else:
        assert later, f"it has written there: {run.tail()}"
        note = "nothing was written any more"
    os.chmod(home, 0o755)
    if out.exists():
        os.chmod(out, 0o755)
    place.start(target, out, again=True, log="again", logs=folder).succeed()
    place.assert_equal(target, out)
    return note[:150]
