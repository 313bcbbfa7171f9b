"""Chooses hyperparameters: each method tries those that its ``tune`` lists, on a split that no report uses.

A trial is a run of a method named ``<method>.<number>``. The best trial has the highest harmonic mean of seen and
unseen classes, averaged over the method's tasks. If trials are shorter than the budget, the best ones can be trained
again with the full length, as ``<method>.<number>.final``; then these decide.
"""

import dataclasses
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from minibench.bench import MISSING, Bench, read_bench
from minibench.methods import BUDGETS, Method
from minibench.report.document import Cell, Row, Section, Table, Text, say
from minibench.report.pages import to_markdown
from PADing.config import load_config
from PADing.config_check import value_at
from PADing.errors import UserError
from PADing.files import replacing

TUNING = "tuning.md"


def chosen(methods: Mapping[str, Method], names: Sequence[str] | None) -> list[str]:
    """The methods to tune: ``names``, or all that list hyperparameters; UserError for a method that lists none."""
    able = [name for name, method in methods.items() if method.search.keys]
    for name in names or ():
        if name not in able:
            why = f"lists no hyperparameters (`tune` in {methods[name].file})" if name in methods else "does not exist"
            raise UserError(f"The method {name!r} {why}. Methods that do: {', '.join(able)}.")
    return list(names or able)


def make_trials(method: Method) -> list[Method]:
    """A method for each trial that ``method`` lists, in this order."""
    length = method.search.iterations
    short = None if length is None else {budget: min(length, method.iterations[budget]) for budget in BUDGETS}
    return [_trial(method, name, short or method.iterations) for name in _trials(method)]


def make_finals(out: Path, method: Method, budget: str = "full") -> list[Method]:
    """The best finished trials in ``out``, with the budget's full length; their number is ``method.search.finalists``.

    Empty if the budget's length is that of the trials.
    """
    search, names = method.search, _trials(method)
    if search.iterations is None or search.iterations >= method.iterations.get(budget, sys.maxsize):
        return []
    means = dict(zip(names, map(_mean, _metrics(read_bench(out), method, names)), strict=True))
    ranked = sorted((-mean, n) for n, mean in enumerate(means.values()) if mean is not None)[: search.finalists]
    return [_trial(method, names[n], method.iterations, ".final") for n in sorted(n for _, n in ranked)]


def write_tuning(out: Path, methods: Sequence[Method]) -> Path:
    """Write ``tuning.md`` with all trials of ``methods`` and their metrics in ``out``; returns its path."""
    bench = read_bench(out)
    counts = sorted({len(_trials(method)) for method in methods})
    note = Text(say("tuning", counts=counts, bench=bench), "note")
    section = Section("", "", [note, *(_table(bench, method) for method in methods)])
    with replacing(out / TUNING) as temporary:
        temporary.write_text(to_markdown("Hyperparameters tried", [section]), encoding="utf-8")
    return out / TUNING


def _table(bench: Bench, method: Method) -> Table:
    search, names = method.search, _trials(method)
    cfg = load_config(method.config, [str(item) for pair in method.overrides.items() for item in pair])
    in_use = tuple(value_at(cfg, key) for key in search.keys)
    metrics = _metrics(bench, method, names)
    means = deciding = list(map(_mean, metrics))
    columns: dict[str, list[float | None]] = {
        task.metric: [row[i] if row else None for row in metrics] for i, task in enumerate(method.tasks)
    }
    if len(method.tasks) > 1:
        columns["Mean"] = means
    if search.finalists:
        finals = [f"{name}.final" for name in names]
        again = list(map(_mean, _metrics(bench, method, finals)))
        columns[f"after {_lengths(bench, finals)} iterations"] = again
        deciding = means if again.count(None) == len(again) else again
    best = max((mean for mean in deciding if mean is not None), default=None)
    rows = []
    for values, decides, *shown in zip(search.trials, deciding, *columns.values(), strict=True):
        texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
        texts[-1] += " †" if values == in_use else ""
        texts += [MISSING if value is None else f"{value:.1f}" for value in shown]
        rows.append(Row([Cell(text, best=best is not None and decides == best) for text in texts]))
    keys = [key.rpartition(".")[2] for key in search.keys]
    return Table(f"{method.title}: after {_lengths(bench, names)} iterations", [*keys, *columns], rows)


def _lengths(bench: Bench, names: Sequence[str]) -> str:
    lengths = sorted({m.iterations.get(bench.budget, 0) for m in bench.methods if m.name in names})
    return ", ".join(f"{length:,}" for length in lengths) or MISSING


def _mean(values: Sequence[float] | None) -> float | None:
    return None if values is None else statistics.fmean(values)


def _metrics(bench: Bench, method: Method, names: Sequence[str]) -> list[list[float] | None]:
    """Harmonic means by task over the seeds that all finished trials share; None for trials without results."""
    found = [[bench.values(name, task, task.harmonic) for task in method.tasks] for name in names]
    finished = [row for row in found if all(row)]
    shared = set.intersection(*(set(values) for row in finished for values in row)) if finished else set()
    if finished and not shared:
        raise UserError(f"No seed has metrics of all finished trials of {method.name}: run `tune` with the same seeds.")
    seeds = sorted(shared)
    return [[statistics.fmean(v[seed] for seed in seeds) for v in row] if all(row) else None for row in found]


def _trials(method: Method) -> list[str]:
    """Names of the trials of a method."""
    return [f"{method.name}.{number}" for number, _ in enumerate(method.search.trials, start=1)]


def _trial(method: Method, name: str, length: Mapping[str, int], suffix: str = "") -> Method:
    values = dict(zip(method.search.keys, method.search.trials[_trials(method).index(name)], strict=True))
    # Reports ignore trials.
    trial = dataclasses.replace(method, role="", expected_above={}, maps_features=False, iterations=length)
    return dataclasses.replace(trial, name=name + suffix, overrides={**method.overrides, **values})
