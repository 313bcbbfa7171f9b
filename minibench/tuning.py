"""Choosing settings: each method tries those that its ``tune`` names, on a split that no report shows.

A trial is a run like any other, of a method named ``<method>.<number>``. The best has the highest harmonic mean of seen
and unseen classes, averaged over the tasks that the method does. Where trials are shorter than the budget, the best of
them can be trained again with its whole length, as ``<method>.<number>.final``; then these decide.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from minibench.methods import BUDGETS, Method
from minibench.report.bench import INSTANCE, TASKS, Bench, Task, read_bench
from minibench.report.document import Cell, Note, Row, Section, Table
from minibench.report.markdown import to_markdown
from minibench.report.statistics import MISSING
from PADing.config import load_config
from PADing.errors import UserError
from PADing.files import replacing

TUNING = "tuning.md"


def chosen(methods: Mapping[str, Method], names: Sequence[str] | None) -> list[str]:
    """The methods to tune: ``names``, or all that name settings.

    Raises:
        UserError: a method that does not exist or names no settings.
    """
    able = [name for name, method in methods.items() if method.search]
    for name in names or ():
        if name not in able:
            why = f"names no settings (`tune` in {methods[name].file})" if name in methods else "does not exist"
            raise UserError(f"The method {name!r} {why}. Methods that do: {', '.join(able)}.")
    return list(names or able)


def make_trials(method: Method) -> list[Method]:
    """A method for each of the settings that ``method`` names, in their order."""
    length = method.search.iterations
    short = None if length is None else {budget: min(length, method.iterations[budget]) for budget in BUDGETS}
    return [_trial(method, number, short) for number in _numbers(method)]


def make_finals(out: Path, method: Method, budget: str = "full") -> list[Method]:
    """The best of the finished trials in ``out`` with the budget's whole length, as many as ``method`` lets in.

    There are none for a budget whose length is that of the trials.
    """
    if method.search.iterations is None or method.search.iterations >= method.iterations.get(budget, sys.maxsize):
        return []
    names = [_name(method, number) for number in _numbers(method)]
    means = list(map(_mean, _figures(read_bench(out), method, names)))
    ranked = sorted((n for n in _numbers(method) if means[n - 1] is not None), key=lambda n: -means[n - 1])
    return [_trial(method, number, None, ".final") for number in sorted(ranked[: method.search.finalists])]


def write_tuning(out: Path, methods: Sequence[Method]) -> Path:
    """Write ``tuning.md``, all settings of ``methods`` with their figures, from the results in ``out``; its path."""
    bench = read_bench(out)
    counts = sorted({len(method.search.trials) for method in methods})
    seeds = ", ".join(map(str, bench.seeds))
    note = (
        f"{' to '.join(map(str, counts))} settings for each method, {bench.split} split, seed {seeds}. Figures: "
        "harmonic means of seen and unseen classes. Bold: the best, by their mean; where some were trained again, by "
        "that. †: what the config says now."
    )
    blocks = [Note(note), *(_table(bench, method) for method in methods)]
    path = out / TUNING
    with replacing(path) as temporary:
        temporary.write_text(to_markdown("Settings tried", [Section("", "", blocks)]), encoding="utf-8")
    return path


def _table(bench: Bench, method: Method) -> Table:
    search, names = method.search, [_name(method, number) for number in _numbers(method)]
    tasks = _tasks(method)
    cfg = load_config(method.config, [str(item) for pair in method.settings.items() for item in pair])
    in_use = tuple(_value(cfg, key) for key in search.keys)
    columns = [*(key.rpartition(".")[2] for key in search.keys), *(task.metric for task in tasks)]
    figures = _figures(bench, method, names)
    means = deciding = again = list(map(_mean, figures))
    if len(tasks) > 1:
        columns.append("Mean")
    if search.finalists:
        finals = [f"{name}.final" for name in names]
        again = list(map(_mean, _figures(bench, method, finals)))
        columns.append(f"after {_lengths(bench, finals)} iterations")
        deciding = means if again.count(None) == len(again) else again
    best = max((mean for mean in deciding if mean is not None), default=None)
    rows = []
    for i, values in enumerate(search.trials):
        texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
        texts[-1] += " †" if values == in_use else ""
        shown = [*(figures[i] or [None] * len(tasks))]
        shown += [means[i]] if len(tasks) > 1 else []
        shown += [again[i]] if search.finalists else []
        texts += [MISSING if figure is None else f"{figure:.1f}" for figure in shown]
        rows.append(Row([Cell(text, best=best is not None and deciding[i] == best) for text in texts]))
    return Table(f"{method.title}: after {_lengths(bench, names)} iterations", columns, rows)


def _tasks(method: Method) -> tuple[Task, ...]:
    return (INSTANCE,) if method.task == "instance" else TASKS


def _lengths(bench: Bench, names: Sequence[str]) -> str:
    lengths = sorted({m.iterations for m in bench.methods if m.name in names})
    return ", ".join(f"{length:,}" for length in lengths) or MISSING


def _mean(figures: Sequence[float] | None) -> float | None:
    return None if figures is None else sum(figures) / len(figures)


def _figures(bench: Bench, method: Method, names: Sequence[str]) -> list[list[float] | None]:
    """Of some trials of ``method``: the harmonic mean of each task, over the seeds that all finished trials share.

    None for a trial that lacks one.
    """
    tasks = _tasks(method)
    found = [[bench.values(name, task, task.harmonic) for task in tasks] for name in names]
    finished = [row for row in found if all(row)]
    shared = set.intersection(*(set(values) for row in finished for values in row)) if finished else set()
    if finished and not shared:
        raise UserError(f"No seed has figures of all finished trials of {method.name}: run `tune` with the same seeds.")
    return [[_mean([values[seed] for seed in sorted(shared)]) for values in row] if all(row) else None for row in found]


def _trial(method: Method, number: int, length: Mapping[str, int] | None, suffix: str = "") -> Method:
    values = dict(zip(method.search.keys, method.search.trials[number - 1], strict=True))
    name, settings = _name(method, number) + suffix, {**method.settings, **values}
    return dataclasses.replace(method, name=name, settings=settings, iterations=length or method.iterations)


def _numbers(method: Method) -> range:
    return range(1, len(method.search.trials) + 1)


def _name(method: Method, number: int) -> str:
    return f"{method.name}.{number}"


def _value(cfg, key: str):
    for part in key.split("."):
        cfg = cfg[part]
    return cfg
