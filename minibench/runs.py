"""``Run``: one method trained with one seed, in its own folder with a record of its state."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minibench.methods import Method
from PADing.files import read_json, replacing, write_json

RECORD = "minibench.json"
# Entries of a finished run's checkpoint. The last two prevent that a second evaluation trains again.
_KEPT = ("model", "trainer", "iteration")


@dataclass(frozen=True)
class Run:
    """One method trained with one seed: planned, running or finished, see the record in its folder.

    Attributes:
        folder: its output folder; it may be missing if the run is read from ``results.json``.
        hash: of all that its metrics depend on, see ``Plan``. opts: overrides of the method's config.
        seconds: of training and evaluation together, None if unknown.
        results: task key -> metric -> value in percent, None if undefined.
        classes: task key -> class name -> PQ of panoptic, AP50 of instance segmentation, in percent.
    """

    method: Method
    seed: int
    folder: Path
    hash: str = ""
    opts: tuple[str, ...] = ()
    seconds: float | None = None
    results: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    classes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name in the plan, also the name of its step."""
        return f"{self.method.name}-seed{self.seed}"

    @property
    def weights(self) -> Path:
        """Path of its final weights."""
        return self.folder / "model_final.pth"

    @property
    def evaluated(self) -> bool:
        """Whether its command has written the results, even if the record does not say so."""
        return (self.folder / "results.json").is_file()

    def record(self) -> dict[str, Any]:
        """``minibench.json``: method, seed, hash, command, seconds of all attempts, state (running, failed, done)."""
        return read_record(self.folder / RECORD)

    @property
    def done(self) -> bool:
        """Whether it is finished and its folder is cleaned up."""
        return self.record().get("state") == "done"

    def note(self, state: str, seconds: float, command: list[str]) -> None:
        """Write the record; a killed run keeps the state "running"."""
        about = {"method": self.method.name, "seed": self.seed, "hash": self.hash}
        about |= {"command": shlex.join(["python", *command]), "seconds": round(seconds, 1), "state": state}
        write_json(self.folder / RECORD, about, indent=1)


def read_record(path: Path) -> dict[str, Any]:
    """The content of a JSON file; empty if the file does not exist."""
    return read_json(path, "Record of the benchmark") if path.is_file() else {}


def finish_training(folder: Path) -> None:
    """Clean up a finished run: ``model_final.pth`` with the weights is enough for evaluation and other methods.

    Deletes intermediate checkpoints and optimizer states. ``metrics.json`` keeps one line for each iteration; a resumed
    training has written some twice.
    """
    final = folder / "model_final.pth"
    if final.is_file():
        from PADing.checkpoint_files import read_checkpoint, write_checkpoint  # imports PyTorch

        # Checked before: damaged weights that are written again would get valid checksums.
        content = read_checkpoint(final, "Checkpoint")
        if set(content) - set(_KEPT):
            write_checkpoint(final, {key: content[key] for key in _KEPT if key in content})
    for path in (*folder.glob("model_0*.pth"), folder / "last_checkpoint"):
        path.unlink(missing_ok=True)
    metrics = folder / "metrics.json"
    if metrics.is_file():
        lines: dict[int, dict] = {}
        for entry in logged(metrics.read_text(encoding="utf-8")):
            lines.setdefault(entry["iteration"], {}).update(entry)
        with replacing(metrics) as temporary:
            temporary.write_text("".join(json.dumps(lines[i], sort_keys=True) + "\n" for i in sorted(lines)))


def logged(text: str) -> list[dict[str, Any]]:
    """The lines of a ``metrics.json``, without incomplete ones."""
    entries = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "iteration" in entry:
            entries.append(entry)
    return entries
