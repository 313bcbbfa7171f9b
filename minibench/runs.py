"""A run's folder: the record of how far it is, and its files before a resumption and after the end."""

import json
import shlex
import zipfile
from pathlib import Path
from typing import Any

from PADing.checkpoint_files import read_checkpoint, write_checkpoint
from PADing.files import replacing

RECORD = "minibench.json"
# Entries of a finished run's checkpoint; by the last two, evaluating it once more does not train it once more.
_KEPT = ("model", "trainer", "iteration")


def write_record(path: Path, content: Any) -> None:
    """JSON for people, under its name only when complete."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_record(path: Path) -> dict:
    """The content of a JSON file; empty when there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


class RunFolder:
    """``minibench.json`` in a run's folder: method, seed, hash, command, seconds and state.

    State: running (or killed), failed, done. Seconds are those of all attempts together.
    """

    def __init__(self, folder: Path, about: dict[str, Any]):
        self.path = folder / RECORD
        self.about = {**about, "command": shlex.join(["python", *map(str, about["command"])])}
        self._before = read_record(self.path).get("seconds", 0.0)

    def is_done(self) -> bool:
        return read_record(self.path).get("state") == "done"

    def measured(self) -> float | None:
        record = read_record(self.path)
        return record["seconds"] if record.get("state") == "done" else None

    def start(self) -> None:
        self.end("running", 0.0)

    def tick(self, seconds: float) -> None:
        self.end("running", seconds)

    def end(self, state: str, seconds: float) -> None:
        write_record(self.path, {**self.about, "seconds": round(self._before + seconds, 1), "state": state})


def repair_checkpoints(folder: Path) -> None:
    """Remove checkpoints that were cut off while being written, and point to the last whole one."""
    if not folder.is_dir():
        return
    whole = []
    for path in sorted(folder.glob("model_*.pth"), key=lambda p: p.stat().st_mtime_ns):
        # torch writes the archive's directory last, so a file that was cut off is none.
        if zipfile.is_zipfile(path):
            whole.append(path)
        else:
            path.unlink()
    pointer = folder / "last_checkpoint"
    if whole:
        with replacing(pointer) as temporary:
            temporary.write_text(whole[-1].name)
    else:
        pointer.unlink(missing_ok=True)


def finish_training(folder: Path) -> None:
    """Keep of a finished run what evaluation and other methods need: ``model_final.pth`` with the weights.

    Intermediate checkpoints and optimizer states go; ``metrics.json`` keeps one line for each iteration, where a
    resumed training has written some twice.
    """
    final = folder / "model_final.pth"
    if final.is_file():
        # Checked: writing damaged weights again would give them checksums that fit.
        content = read_checkpoint(final, "Checkpoint")
        if set(content) - set(_KEPT):
            write_checkpoint(final, {key: content[key] for key in _KEPT if key in content})
    for path in (*folder.glob("model_0*.pth"), folder / "last_checkpoint"):
        path.unlink(missing_ok=True)
    metrics = folder / "metrics.json"
    if metrics.is_file():
        _once_each(metrics)


def _once_each(metrics: Path) -> None:
    lines: dict[int, dict] = {}
    for line in metrics.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # cut off
            continue
        if isinstance(entry, dict) and "iteration" in entry:
            lines[entry["iteration"]] = {**lines.get(entry["iteration"], {}), **entry}
    with replacing(metrics) as temporary:
        temporary.write_text("".join(json.dumps(lines[i], sort_keys=True) + "\n" for i in sorted(lines)))
