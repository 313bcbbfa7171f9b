"""Reads ``results.json`` as a ``Bench``, with means, deviations and differences paired by seed."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minibench.by_class import numbers_by_class
from minibench.methods import SHOWN, TASKS, Method, Task, discover
from minibench.runs import Run
from PADing.errors import UserError
from PADing.files import read_json

__all__ = ["MISSING", "OTHER", "RESULTS", "Bench", "Spread", "bench_of", "read_bench", "read_content", "spread"]

RESULTS = "results.json"
# Beside it, if there are any: runs of the same methods with other hyperparameters, in the same format.
OTHER = "other_settings.json"

MISSING = "–"
VERSION = 1
# Keys of ``results.json`` about the data and the machine.
DATA = ("version", "checksum", "train", "val", "size", "noise", "folders")
BY_SEED = ("checksum", "folders")  # of these
MACHINE = ("cpu", "cores", "torch", "python")


@dataclass(frozen=True)
class Spread:
    """Values by seed, their mean (None without values) and sample standard deviation (None with fewer than two)."""

    values: Mapping[int, float]
    mean: float | None
    sd: float | None

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.values)

    def parts(self, signed: bool = False) -> tuple[str, str]:
        """("12.3", "± 0.4"): mean and standard deviation as text, "" where there is no deviation."""
        if self.mean is None:
            return MISSING, ""
        mean = f"{self.mean:+.1f}" if signed else f"{self.mean:.1f}"
        mean = mean.replace("-", "−") if float(mean) else mean.lstrip("+-")
        return mean, "" if self.sd is None else f"± {self.sd:.1f}"

    def text(self, signed: bool = False) -> str:
        """Mean and standard deviation, such as "12.3 ± 0.4"."""
        return " ".join(part for part in self.parts(signed) if part)


def spread(values: Mapping[int, float]) -> Spread:
    """The spread of the finite values. The deviation divides by n - 1."""
    kept = {seed: float(value) for seed, value in sorted(values.items()) if math.isfinite(value)}
    numbers = list(kept.values())
    mean = statistics.fmean(numbers) if numbers else None
    return Spread(kept, mean, statistics.stdev(numbers) if len(numbers) > 1 else None)


@dataclass(frozen=True)
class Bench:
    """All methods and runs of one benchmark folder; ``data`` and ``machine`` as in ``results.json``.

    Attributes:
        declared: all methods of the repository and of the folder by name, also those that were not run.
    """

    folder: Path
    split: str
    budget: str
    seeds: tuple[int, ...]
    data: Mapping[str, Any]
    machine: Mapping[str, Any]
    methods: tuple[Method, ...]
    runs: tuple[Run, ...]
    declared: Mapping[str, Method]

    def method(self, name: str) -> Method | None:
        """The method with this name, or None."""
        return next((m for m in self.methods if m.name == name), None)

    def with_role(self, *roles: str) -> list[Method]:
        """The methods of the benchmark that have one of ``roles``."""
        return [m for m in self.methods if m.role in roles]

    def runs_of(self, name: str) -> list[Run]:
        """Finished runs of a method, by seed."""
        return sorted((run for run in self.runs if run.method.name == name), key=lambda run: run.seed)

    def values(self, name: str, task: Task, metric: str) -> dict[int, float]:
        """Seed -> a metric of a method; seeds without a number are left out."""
        found = {run.seed: run.results.get(task.key, {}).get(metric) for run in self.runs_of(name)}
        return {seed: value for seed, value in found.items() if value is not None}

    def spread(self, method: Method, task: Task, metric: str) -> Spread:
        """The spread of a metric of a method over its seeds."""
        return spread(self.values(method.name, task, metric))

    def difference(self, first: Method, second: Method, task: Task, metric: str) -> Spread:
        """The spread of ``first - second`` over the seeds that both have, with the same data and pretraining."""
        a, b = (self.values(method.name, task, metric) for method in (first, second))
        return spread({seed: a[seed] - b[seed] for seed in a.keys() & b.keys()})

    def with_runs_of(self, other: "Bench") -> "Bench":
        """The same with the runs that ``other`` adds: of this benchmark's methods, with seeds that they lack."""
        here = {(run.method.name, run.seed) for run in self.runs}
        added: dict[tuple[str, int], Run] = {}
        for run in other.runs:
            method, key = self.method(run.method.name), (run.method.name, run.seed)
            if method and key not in here:
                added.setdefault(key, replace(run, method=method))
        return replace(self, runs=(*self.runs, *added.values()))

    def full(self, method: Method) -> Method | None:
        """The method that ``method`` ablates or extends, or None."""
        return self.method(method.ablates or method.extends)

    def variants(self, method: Method) -> list[Method]:
        """The methods that ablate or extend ``method``."""
        return [m for m in self.methods if self.full(m) is method]


def read_bench(folder: Path, name: str = RESULTS) -> Bench:
    """Read ``<folder>/<name>``; fills the gaps of older files. UserError when it is missing or damaged."""
    path = folder.absolute() / name
    return bench_of(read_content(path), path)


def read_content(path: Path) -> dict[str, Any]:
    """The content of a ``results.json``, of which the version only is checked; UserError when it cannot be read."""
    if not path.is_file():
        raise UserError(f"{path} does not exist. `python -m minibench run` writes it.")
    content = read_json(path, "Results of the mini benchmark")
    version = content.get("version")
    if version != VERSION:
        cure = "Update this repository, or run the benchmark again"
        raise UserError(f"{path} has version {version}; this program reads version {VERSION}. {cure}.")
    return content


def bench_of(content: Mapping[str, Any], path: Path) -> Bench:
    """``content``, as it is in the file ``path``; UserError when it is damaged."""
    try:
        budget, declared, folder = str(content.get("budget", "")), discover(), path.parent
        methods = {entry["name"]: _method(entry, budget, declared) for entry in content["methods"]}
        runs = tuple(_run(entry, methods, folder) for entry in content["runs"] if entry["method"] in methods)
        return Bench(
            folder=folder,
            split=str(content.get("split", "")),
            budget=budget,
            seeds=tuple(content.get("seeds") or sorted({run.seed for run in runs})),
            data={key: content["data"][key] for key in DATA} | {k: dict(content["data"][k]) for k in BY_SEED},
            machine={key: content["machine"][key] for key in MACHINE},
            methods=tuple(methods.values()),
            runs=runs,
            declared={**declared, **methods},
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path} is not what the mini benchmark writes: {error!r}. Run the benchmark again.") from error


def _method(entry: Mapping, budget: str, declared: Mapping[str, Method]) -> Method:
    name, iterations = entry["name"], entry.get("iterations")
    known = declared.get(name, Method(name, name, "panoptic"))
    return Method(
        name=name,
        title=entry.get("title") or name,
        task=entry.get("task") or "panoptic",
        iterations={budget: int(iterations)} if isinstance(iterations, (int, float)) else {},
        hyperparameters=dict(entry.get("hyperparameters") or {}),
        **{key: entry.get(key, getattr(known, key)) for key in SHOWN},
    )


def _run(entry: Mapping, methods: Mapping[str, Method], folder: Path) -> Run:
    results = entry.get("results") or {}
    known = {task.key for task in TASKS}
    if results and not known & results.keys():
        # With one evaluation set, train_net.py puts the metrics below its name.
        results = next((v for v in results.values() if isinstance(v, Mapping) and known & v.keys()), {})
    tables = {task: values for task, values in results.items() if isinstance(values, Mapping)}
    metrics = {task: {key: _number(value) for key, value in values.items()} for task, values in tables.items()}
    return Run(
        method=methods[entry["method"]],
        seed=int(entry["seed"]),
        folder=folder / entry["folder"],
        hash=str(entry.get("hash", "")),
        seconds=_number(entry.get("seconds")),
        results=metrics,
        classes=numbers_by_class(entry.get("classes")),
    )


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None
