"""Files of a run that are torn or garbled: what is good is found and named, and nothing damaged is believed."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.faults.battery import Case
from tests.faults.targets import Workplace, leftovers

CHECKPOINTS, TEXTS = 30, 15
TEXT_FILES = ("last_checkpoint", "metrics.json", "config.yaml", "environment.json", "results.json", "log.txt")


def cases(place: Workplace, seed: int, scale: float = 1) -> Iterator[Case]:
    for kind, function, count in (("torn", _checkpoint, CHECKPOINTS), ("texts", _text, TEXTS)):
        for number in range(max(1, round(count * scale))):
            name = f"files/{kind}/{number:02d}"
            yield Case(name, lambda folder, _, f=function, n=name: f(place, folder, random.Random(f"{seed} {n}")))


def spoil(path: Path, rng: random.Random) -> str:
    """Damage a file as disks, copies and power failures do; says how."""
    data, kind = bytearray(path.read_bytes()), rng.randrange(7)
    where = rng.randrange(len(data)) if data else 0
    if kind == 0:
        said, data = f"cut off at byte {where}", data[:where]
    elif kind == 1:
        data[where] ^= 1 << rng.randrange(8)
        said = f"one bit of byte {where} flipped"
    elif kind == 2:
        start = where // 4096 * 4096
        data[start : start + 4096] = bytes(len(data[start : start + 4096]))
        said = f"page at {start} zeroed"
    elif kind == 3:
        data[where:] = bytes(len(data) - where)
        said = f"zeros from byte {where} on"
    elif kind == 4:
        data[where:where] = data[where : where + 4096]
        said = f"4,096 bytes at {where} twice"
    elif kind == 5:
        for _ in range(30):
            data[rng.randrange(len(data))] = rng.randrange(256)
        said = "30 bytes replaced"
    else:
        said, data = "emptied", bytearray()
    path.write_bytes(data)
    return f"{path.name}: {said}"


def _checkpoint(place: Workplace, folder: Path, rng: random.Random) -> str:
    """The last checkpoint, and sometimes the one before it."""
    target = rng.choice(("pretraining", "stage2", "d2zero"))
    out = folder / "out"
    shutil.copytree(place.reference(target), out)
    numbered = sorted(out.glob("model_0*.pth"))
    last = rng.choice(("model_final.pth", numbered[-1].name))
    if last != "model_final.pth":  # as if the training had ended there
        (out / "model_final.pth").unlink()
        (out / "last_checkpoint").write_text(last)
    (out / "results.json").unlink()
    damaged = [out / last] + [path for path in numbered[-2:-1] if rng.random() < 0.3]
    said = "; ".join(spoil(path, rng) for path in damaged)
    if last == "model_final.pth" and rng.random() < 0.3:
        (out / "last_checkpoint").unlink()
    again = place.start(target, out, again=True)
    if status := again.end():
        assert status == 2, f"{said}: status {status}: {again.tail()}"
        message = again.refuse_ended(last)
        good = [p for p in out.glob("model_0*.pth") if p not in damaged]
        newest = max(good).name
        assert newest in message or "model_final.pth" in message.replace(last, "", 1), f"{said}: {message[:500]}"
        (out / last).rename(folder / "moved away")
        place.start(target, out, again=True, log="again").succeed()
    for path in damaged[1:]:  # it was not needed, or it was harmless
        path.unlink(missing_ok=True)
    # Older checkpoints are not written again, nor is the name of the last one in a finished training.
    for name in {"last_checkpoint", *(path.name for path in damaged[1:])}:
        if not (out / name).exists():
            shutil.copy(place.reference(target) / name, out / name)
    place.assert_equal(target, out)
    return said


def _text(place: Workplace, folder: Path, rng: random.Random) -> str:
    """The small files beside the checkpoints."""
    out = folder / "out"
    shutil.copytree(place.reference("pretraining"), out)
    (out / "model_final.pth").unlink()
    last = sorted(out.glob("model_0*.pth"))[-2]
    for path in out.glob("model_0*.pth"):
        if path.name > last.name:
            path.unlink()
    (out / "last_checkpoint").write_text(last.name)
    said = "; ".join(spoil(out / name, rng) for name in rng.sample(TEXT_FILES, rng.choice((1, 2, 3))))
    again = place.start("pretraining", out, again=True)
    if again.end():
        message = again.refuse_ended("last_checkpoint")
        said += f": {message[:200]}"
        (out / "last_checkpoint").unlink()
        place.start("pretraining", out, again=True, log="again").succeed()
    place.assert_equal("pretraining", out)
    assert not (left := leftovers(folder)), f"these remain: {left[:5]}"
    return said
