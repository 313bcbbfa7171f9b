"""``results.json`` of a benchmark folder, read into objects that know what was run and what was not."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PADing.errors import UserError

__all__ = ["TASKS", "Bench", "Method", "Run", "Task", "read_bench"]


@dataclass(frozen=True)
class Task:
    """One kind of segmentation, and what its evaluator calls the figures over seen and unseen classes.

    Attributes:
        key: in ``results.json``. title: for people. metric: name of the figure.
        seen, unseen, harmonic: keys of the three figures, in percent.
    """

    key: str
    title: str
    metric: str
    seen: str
    unseen: str
    harmonic: str

    @property
    def figures(self) -> tuple[str, str, str]:
        return self.seen, self.unseen, self.harmonic


PANOPTIC = Task("panoptic_seg", "Panoptic segmentation", "PQ", "PQ_se", "PQ_un", "PQ_hm")
SEMANTIC = Task("sem_seg", "Semantic segmentation", "IoU", "seen_IoU", "unseen_IoU", "hIoU")
INSTANCE = Task("segm", "Instance segmentation", "AP50", "AP50_seen", "AP50_unseen", "AP50_hm")
TASKS = (PANOPTIC, SEMANTIC, INSTANCE)


@dataclass(frozen=True)
class Method:
    """One row of the tables. ``ablates``: name of the full method ("" for none); ``removes``: what it lacks."""

    name: str
    title: str
    task: str
    ablates: str = ""
    removes: str = ""
    iterations: int | None = None

    @property
    def main_task(self) -> Task:
        """The task that it is judged by."""
        return INSTANCE if self.task == "instance" else PANOPTIC

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What it can be evaluated on: a panoptic model gives semantic and instance results too."""
        return (INSTANCE,) if self.task == "instance" else TASKS


@dataclass(frozen=True)
class Run:
    """One method trained with one seed.

    Attributes:
        folder: absolute path of its output folder; may be gone.
        seconds: of training and evaluation together, None where nobody measured.
        results: task key -> figure -> value in percent, None where it is not defined.
    """

    method: str
    seed: int
    folder: Path
    seconds: float | None
    results: Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True)
class Bench:
    """All methods and runs of one benchmark folder; ``data`` and ``machine`` as in ``results.json``."""

    folder: Path
    split: str
    budget: str
    seeds: tuple[int, ...]
    data: Mapping[str, Any]
    machine: Mapping[str, Any]
    methods: tuple[Method, ...]
    runs: tuple[Run, ...]

    def method(self, name: str) -> Method | None:
        """The method of this name, None when the benchmark has none."""
        return next((m for m in self.methods if m.name == name), None)

    def runs_of(self, name: str) -> list[Run]:
        """Finished runs of a method, by seed."""
        return sorted((run for run in self.runs if run.method == name), key=lambda run: run.seed)

    def values(self, name: str, task: Task, figure: str) -> dict[int, float]:
        """Seed -> a figure of a method; seeds without a number are left out."""
        found = {run.seed: run.results.get(task.key, {}).get(figure) for run in self.runs_of(name)}
        return {seed: value for seed, value in found.items() if value is not None}

    def full(self, method: Method) -> Method | None:
        """What ``method`` is a variant of: the method that it ablates, or the one that its name begins with.

        ``pading_self_training`` removes nothing, so it ablates nothing, but it is compared with ``pading``.
        """
        if method.ablates:
            return self.method(method.ablates)
        heads = [m for m in self.methods if not m.ablates and method.name.startswith(f"{m.name}_")]
        return max(heads, key=lambda m: len(m.name), default=None)

    def variants(self, method: Method) -> list[Method]:
        """The methods that are ``method`` with something taken away or added."""
        return [m for m in self.methods if self.full(m) is method]


def read_bench(folder: Path) -> Bench:
    """Read ``<folder>/results.json``.

    Raises:
        UserError: the file is missing or is not what ``tools/minibench.py`` writes.
    """
    path = Path(folder) / "results.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. `python tools/minibench.py run` writes it.") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None
    try:
        if content["version"] != 1:
            raise UserError(f"{path} has version {content['version']}; this report reads version 1.")
        methods = tuple(_method(entry) for entry in content["methods"])
        known = {method.name for method in methods}
        runs = tuple(_run(entry, Path(folder).absolute()) for entry in content["runs"] if entry["method"] in known)
        return Bench(
            folder=Path(folder).absolute(),
            split=str(content.get("split", "")),
            budget=str(content.get("budget", "")),
            seeds=tuple(content.get("seeds") or sorted({run.seed for run in runs})),
            data=content.get("data") or {},
            machine=content.get("machine") or {},
            methods=methods,
            runs=runs,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path} is not what tools/minibench.py writes: {error!r}. Run it once more.") from error


def _method(entry: Mapping) -> Method:
    iterations = entry.get("iterations")
    return Method(
        name=entry["name"],
        title=entry.get("title") or entry["name"],
        task=entry.get("task") or "panoptic",
        ablates=entry.get("ablates") or "",
        removes=entry.get("removes") or "",
        iterations=int(iterations) if isinstance(iterations, (int, float)) else None,
    )


def _run(entry: Mapping, folder: Path) -> Run:
    results = entry.get("results") or {}
    known = {task.key for task in TASKS}
    if results and not known & results.keys():
        # With one test set, train_net.py puts the figures below its name.
        results = next((v for v in results.values() if isinstance(v, Mapping) and known & v.keys()), {})
    figures = {
        task: {key: _number(value) for key, value in values.items()}
        for task, values in results.items()
        if isinstance(values, Mapping)
    }
    return Run(entry["method"], int(entry["seed"]), folder / entry["folder"], _number(entry.get("seconds")), figures)


def _number(value) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None
