"""Means, sample standard deviations, and differences paired by seed."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from minibench.report.bench import TASKS, Bench, Task

__all__ = ["MISSING", "Spread", "best_means", "paired", "spread", "spread_of", "summary"]

MISSING = "–"


@dataclass(frozen=True)
class Spread:
    """Values by seed, their mean and sample standard deviation (None with fewer than one or two values)."""

    values: Mapping[int, float]
    mean: float | None
    sd: float | None

    @property
    def n(self) -> int:
        return len(self.values)

    def parts(self, signed: bool = False) -> tuple[str, str]:
        """("12.3", "± 0.4"): mean and standard deviation as text, "" where there is no deviation."""
        if self.mean is None:
            return MISSING, ""
        mean = f"{self.mean:+.1f}" if signed else f"{self.mean:.1f}"
        mean = mean.replace("-", "−") if float(mean) else mean.lstrip("+-")
        return mean, "" if self.sd is None else f"± {self.sd:.1f}"

    def text(self, signed: bool = False) -> str:
        return " ".join(part for part in self.parts(signed) if part)


def spread(values: Mapping[int, float]) -> Spread:
    """Of finite values by seed. The deviation divides by n - 1."""
    kept = {seed: float(value) for seed, value in sorted(values.items()) if math.isfinite(value)}
    if not kept:
        return Spread({}, None, None)
    mean = math.fsum(kept.values()) / len(kept)
    sd = None
    if len(kept) > 1:
        sd = math.sqrt(math.fsum((v - mean) ** 2 for v in kept.values()) / (len(kept) - 1))
    return Spread(kept, mean, sd)


def spread_of(bench: Bench, method: str, task: Task, figure: str) -> Spread:
    """Of one figure of one method over its seeds."""
    return spread(bench.values(method, task, figure))


def paired(bench: Bench, first: str, second: str, task: Task, figure: str) -> Spread:
    """Of ``first - second``, over the seeds that both methods have a number for.

    Runs of one seed share data and pretraining, so what these contribute cancels.
    """
    a, b = (bench.values(name, task, figure) for name in (first, second))
    return spread({seed: a[seed] - b[seed] for seed in a.keys() & b.keys()})


def best_means(bench: Bench, task: Task) -> dict[str, float]:
    """Figure -> the highest mean of all methods, as far as one is above zero."""
    best = {}
    for figure in task.figures:
        means = [spread_of(bench, m.name, task, figure).mean for m in bench.methods]
        top = max((mean for mean in means if mean is not None), default=0.0)
        if top > 0:
            best[figure] = top
    return best


def summary(bench: Bench) -> dict:
    """Mean, standard deviation, n and values by method, task and figure: the content of ``summary.json``."""
    methods = {}
    for method in bench.methods:
        tasks = {}
        for task in TASKS:
            spreads = {figure: spread_of(bench, method.name, task, figure) for figure in task.figures}
            if any(s.n for s in spreads.values()):
                tasks[task.key] = {figure: _as_dict(s) for figure, s in spreads.items()}
        entry = {"title": method.title, "seeds": [run.seed for run in bench.runs_of(method.name)], "figures": tasks}
        if full := bench.full(method):
            entry["full"] = full.name
            entry["difference"] = {
                task.key: {f: _as_dict(paired(bench, method.name, full.name, task, f)) for f in task.figures}
                for task in TASKS
                if task.key in tasks
            }
        methods[method.name] = entry
    return {"version": 1, "split": bench.split, "budget": bench.budget, "seeds": list(bench.seeds), "methods": methods}


def _as_dict(value: Spread) -> dict:
    return {"mean": value.mean, "sd": value.sd, "n": value.n, "values": dict(value.values)}


def total(values: Iterable[float | None]) -> float:
    """Sum of what was measured."""
    return math.fsum(value for value in values if value is not None)
