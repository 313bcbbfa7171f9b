"""Processes that are killed at random places, and then run again."""

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults import children
from tests.faults.battery import Case
from tests.faults.commands import Plan, Run
from tests.faults.targets import Workplace, age, leftovers

COUNTS = {"pretraining": 20, "stage2": 16, "d2zero": 16, "evaluation": 10, "panoptic": 6, "data": 16, "checkpoints": 16}
WAYS = ("kill", "kill", "term", "write", "moment", "moment term")
WAYS_OF_CHECKPOINTS = ("write", "write", "write", "kill", "moment", "term")


def cases(place: Workplace, seed: int, scale: float = 1) -> Iterator[Case]:
    for target, count in COUNTS.items():
        for number in range(max(1, round(count * scale))):
            name = f"kills/{target}/{number:03d}"
            yield Case(name, lambda folder, _, t=target, n=name: _case(place, t, folder, random.Random(f"{seed} {n}")))


def _case(place: Workplace, target: str, folder: Path, rng: random.Random) -> str:
    """End the command once to three times, each time somewhere else, run it to its end, and compare."""
    place.reference(target)
    out, workers = folder / "out", rng.random() < 0.2 and target not in ("data", "evaluation", "panoptic")
    more = ["DATALOADER.NUM_WORKERS", 1] if workers else []
    said = []
    for attempt in range(rng.choice((1, 1, 2, 3))):
        age(folder)
        said.append(_end_once(place, target, out, more, rng, attempt))
        assert not [name for name in _torn(out) if target != "data"], f"torn after {said}: {_torn(out)}"
    age(folder)
    run = place.start(target, out, *more, again=True, log="last")
    try:
        run.succeed()
    except AssertionError as error:
        raise AssertionError(f"after {said}: {error}") from error
    place.assert_equal(target, out)
    left = leftovers(folder)
    assert not left, f"after {said}, these remain: {left[:5]}"
    return "; ".join(said)


def _end_once(place: Workplace, target: str, out: Path, more: list, rng: random.Random, attempt: int) -> str:
    operations, way = place.operations(target), rng.choice(WAYS_OF_CHECKPOINTS if target == "checkpoints" else WAYS)
    options: dict = {"again": attempt > 0, "log": str(attempt)}
    if way.startswith("moment"):
        number = signal.SIGTERM if "term" in way else signal.SIGKILL
        moment = rng.uniform(0.02, 1) * place.seconds(target)
        run = place.start(target, out, *more, **options)
        status = _after(run, moment, number)
        what = f"{number.name} after {moment:.2f} s"
    else:
        at = _operation(operations, way, rng)
        size = rng.randrange(2_000, _largest(place.reference(target)))
        watch = out.parent if target == "data" else out
        plan = Plan(at, way, size)
        run = place.start(target, out, *more, watch=watch, plan=plan, **options)
        status = run.end()
        what = f"{way} at operation {at}" + (f", byte {size}" if way == "write" else "")
    if status == 0:
        return f"{what} (it had ended)"
    stopped = "term" in way and status in (143, -signal.SIGTERM, 130)
    assert stopped or status in (-signal.SIGKILL, -signal.SIGXFSZ), f"{what}: status {status}: {run.tail()}"
    if stopped:
        assert "Traceback (most recent" not in run.output(), f"{what}: {run.tail()}"
    _assert_alone(run)
    return what


def _operation(operations: list[str], way: str, rng: random.Random) -> int:
    """A file operation; for "write" one that opens a large file."""
    large = [i for i, text in enumerate(operations, 1) if text.startswith("open") and text.endswith((".pth", ".jpg"))]
    return rng.choice(large) if way == "write" and large else rng.randrange(1, len(operations) + 1)


def _largest(folder: Path) -> int:
    return max(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _after(run: Run, seconds: float, number: int) -> int:
    """Send a signal when the process has used the processor for so long."""
    while not (ended := os.waitpid(run.process, os.WNOHANG))[0]:
        fields = Path(f"/proc/{run.process}/stat").read_text().rpartition(")")[2].split()
        if (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") >= seconds:
            os.kill(run.process, number)
            return run.end()
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(ended[1])


def _assert_alone(run: Run) -> None:
    """Loader workers end with the process that they work for."""
    deadline = time.monotonic() + 15
    while others := children.members(run.process):
        assert time.monotonic() < deadline, f"processes {others} outlive the command"
        time.sleep(0.1)


def _torn(out: Path) -> list[str]:
    """Files under final names that are not whole."""
    from PADing.checkpoint_files import file_problem

    torn = [path.name for path in out.glob("model_*.pth") if file_problem(path)]
    for path in out.rglob("*.json"):
        if path.name != "metrics.json" and ".tmp" not in path.name:
            try:
                json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                torn.append(path.name)
    return torn
