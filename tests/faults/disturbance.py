"""What others do to a run: they take its data away, start a second one in its folder, or set the clock."""

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.battery import Case
from tests.faults.commands import Plan, Run
from tests.faults.targets import Workplace, leftovers

COUNTS = {"vanish": 24, "two": 9, "clock": 10}
TRAININGS = ("pretraining", "stage2", "d2zero")


def cases(place: Workplace, seed: int, scale: float = 1) -> Iterator[Case]:
    for kind, function in (("vanish", _vanish), ("two", _two), ("clock", _clock)):
        for number in range(max(1, round(COUNTS[kind] * scale))):
            name = f"files/{kind}/{number:02d}"
            yield Case(
                name,
                lambda folder, _, f=function, n=name, i=number: f(place, folder, random.Random(f"{seed} {n}"), i),
            )


# ---- data that vanish


def _vanish(place: Workplace, folder: Path, rng: random.Random, number: int) -> str:
    target = (*TRAININGS, "evaluation", "panoptic")[number % 5]
    place.reference(target)
    data, out = folder / "datasets", folder / "out"
    shutil.copytree(place.data, data, symlinks=False)
    what, act = _losses(data / "mini", rng)[number // 5 % 5]
    at = rng.randrange(1, len(place.operations(target)) + 1)
    workers = ["DATALOADER.NUM_WORKERS", rng.choice((0, 0, 1))]
    own = {"environ": {"DETECTRON2_DATASETS": str(data)}}
    vectors = ["MODEL.CLASS_EMBEDDINGS", data / "mini" / "class_vectors.npz"]
    run = place.start(target, out, *workers, *vectors, watch=out, plan=Plan(at, act=act), **own)
    note = "not noticed" if (status := run.end()) == 0 else run.refuse_ended(str(data))
    assert status in (0, 2), f"{what} at operation {at}: status {status}: {run.tail()}"
    shutil.rmtree(data)
    shutil.copytree(place.data, data)
    if status or "other" not in what:
        place.start(target, out, *workers, *vectors, again=True, log="again", **own).succeed()
        place.assert_equal(target, out)
        assert not (left := leftovers(out)), f"these remain: {left[:5]}"
    return f"{what} at operation {at}: {note[:200]}"


def _losses(mini: Path, rng: random.Random) -> list[tuple[str, Callable[[], object]]]:
    subset = rng.choice(("train", "val"))
    folder = rng.choice((subset, f"panoptic_{subset}", "annotations"))

    def remove_images() -> None:
        for path in (mini / subset).iterdir():
            path.unlink()

    def replace_annotation() -> None:
        text = rng.choice(("", "{}", "[]", '{"images": [], "annotations": [], "categories": []}', "<html></html>"))
        for path in (mini / "annotations").iterdir():
            path.write_text(text)

    def other_annotation() -> None:
        for path in (mini / "annotations").glob("*_val*.json"):
            shutil.copy(path.with_name(path.name.replace("_val", "_train")), path)

    return [
        (f"images of {subset} deleted", remove_images),
        (f"folder {folder} renamed", lambda: (mini / folder).rename(mini / "gone")),
        ("annotation emptied", replace_annotation),
        ("another annotation", other_annotation),
        ("everything deleted", lambda: shutil.rmtree(mini)),
    ]


# ---- two runs in one folder


def _two(place: Workplace, folder: Path, rng: random.Random, number: int) -> str:
    out = folder / "out"
    if number % 3 == 0:
        return _two_trainings(place, out, rng)
    target = ("evaluation", "data")[number % 3 - 1]
    place.reference(target)
    first = place.start(target, out, log="first")
    time.sleep(rng.uniform(0, 0.8) * place.seconds(target))
    second = place.start(target, out, log="second")
    ends = [run.end() for run in (first, second)]
    assert 0 in ends and set(ends) <= {0, 2}, f"both end with {ends}: {first.tail()} {second.tail()}"
    for run, status in zip((first, second), ends, strict=True):
        if status:
            run.refuse_ended()
    place.assert_equal(target, out)
    assert not (left := leftovers(folder)), f"these remain: {left[:5]}"
    return f"two of {target}: {ends}"


def _two_trainings(place: Workplace, out: Path, rng: random.Random) -> str:
    target = rng.choice(TRAININGS)
    place.reference(target)
    first = place.start(target, out, log="first")
    _until(lambda: (out / "training.lock").exists(), first)
    time.sleep(rng.uniform(0, 0.5) * place.seconds(target))
    flag = rng.choice(("", "--resume", "--overwrite"))
    with first.held():  # or it may end before the second one looks
        active = (out / "training.lock").exists()
        second = place.start(target, out, *([flag] if flag else []), log="second")
        if active or not flag:
            second.refuse("is in use", "holds a")
        else:
            second.succeed()
    first.succeed()
    place.assert_equal(target, out)
    return f"a second {target} {flag}{'' if active else ', after the first one'}"


def _until(holds: Callable[[], bool], run: Run) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, f"it does not begin: {run.tail()}"
        time.sleep(0.01)


# ---- the clock


def _clock(place: Workplace, folder: Path, rng: random.Random, number: int) -> str:
    """The clock steps back and forth while a run goes on, and files come from the future."""
    target = (*TRAININGS, "evaluation", "data")[number % 5]
    place.reference(target)
    out, steps = folder / "out", random.Random(rng.random())

    def step() -> None:
        real, offset = time.time, [0.0]

        def wrong() -> float:
            if steps.random() < 0.1:
                offset[0] = steps.choice((-real() + 1, -86400.0 * 365, -3600.0, -1.0, 3600.0, 86400.0 * 3650))
            return real() + offset[0]

        time.time = wrong

    at = rng.randrange(1, len(place.operations(target)) + 1)
    watch = out.parent if target == "data" else out
    place.start(target, out, log="first", before=step, watch=watch, plan=Plan(at)).end()
    for path in folder.rglob("*"):
        year = 0 if ".tmp" in path.name else rng.choice((0, 10**9, 4 * 10**9))
        os.utime(path, (year, year))
    place.start(target, out, again=True, log="again", before=step).succeed()
    place.assert_equal(target, out)
    assert not (left := leftovers(folder)), f"these remain: {left[:5]}"
    return f"{target}, killed at operation {at}"
