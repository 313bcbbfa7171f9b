"""Choosing settings: each method tries those that its ``tune`` names, on a split that no report shows.

A trial is a run like any other, of a method named ``<method>.<number>``. The best has the highest harmonic mean of seen
and unseen classes, averaged over the tasks that the method does. Nothing is chosen by hand.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from minibench.methods import BUDGETS, Method
from minibench.report.bench import Bench, read_bench
from minibench.report.document import Cell, Note, Row, Section, Table
from minibench.report.markdown import to_markdown
from minibench.report.statistics import MISSING, spread_of
from PADing.config import load_config
from PADing.data.files import replacing
from PADing.errors import UserError

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
    search = method.search
    length = method.iterations if search.iterations is None else dict.fromkeys(BUDGETS, search.iterations)
    return [
        dataclasses.replace(
            method,
            name=_trial_name(method, number),
            settings={**method.settings, **dict(zip(search.keys, values, strict=True))},
            iterations=length,
        )
        for number, values in enumerate(search.trials, 1)
    ]


def write_tuning(out: Path, methods: Sequence[Method]) -> Path:
    """Write ``tuning.md``, all settings of ``methods`` with their figures, from the results in ``out``; its path."""
    bench = read_bench(out)
    counts = sorted({len(method.search.trials) for method in methods})
    seeds = ", ".join(map(str, bench.seeds))
    note = (
        f"{' to '.join(map(str, counts))} settings for each method, {bench.split} split, seed {seeds}. Figures: "
        "harmonic means of seen and unseen classes. Bold: the best, by their mean. †: what the config says now."
    )
    blocks = [Note(note), *(_table(bench, method) for method in methods)]
    path = out / TUNING
    with replacing(path) as temporary:
        temporary.write_text(to_markdown("Settings tried", [Section("", "", blocks)]), encoding="utf-8")
    return path


def _table(bench: Bench, method: Method) -> Table:
    search, tasks = method.search, bench.method(_trial_name(method, 1)).tasks
    cfg = load_config(method.config, [str(item) for pair in method.settings.items() for item in pair])
    in_use = tuple(_value(cfg, key) for key in search.keys)
    names = [_trial_name(method, number) for number in range(1, len(search.trials) + 1)]
    figures = [[spread_of(bench, name, task, task.harmonic).mean for task in tasks] for name in names]
    means = [None if None in row else sum(row) / len(row) for row in figures]
    best = max((mean for mean in means if mean is not None), default=None)
    rows = []
    for values, row, mean in zip(search.trials, figures, means, strict=True):
        texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
        texts[-1] += " †" if values == in_use else ""
        shown = [*row, mean] if len(tasks) > 1 else row
        texts += [MISSING if figure is None else f"{figure:.1f}" for figure in shown]
        rows.append(Row([Cell(text, best=mean is not None and mean == best) for text in texts]))
    columns = [*(key.rpartition(".")[2] for key in search.keys), *(task.metric for task in tasks)]
    columns += ["Mean"] if len(tasks) > 1 else []
    return Table(f"{method.title}: after {bench.method(names[0]).iterations} iterations", columns, rows)


def _trial_name(method: Method, number: int) -> str:
    return f"{method.name}.{number}"


def _value(cfg, key: str):
    for part in key.split("."):
        cfg = cfg[part]
    return cfg
