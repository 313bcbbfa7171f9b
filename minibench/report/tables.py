"""The tables of the report."""

from collections.abc import Iterable

from minibench.report.bench import TASKS, Bench, Method, Task
from minibench.report.document import Cell, Row, Table
from minibench.report.reading import FAILS, HOLDS, UNKNOWN, WITHIN, Expectation
from minibench.report.statistics import MISSING, Spread, best_means, paired, spread_of, total

__all__ = [
    "BASELINES",
    "duration",
    "groups",
    "methods_table",
    "over_seeds",
    "paired_table",
    "reading_table",
    "task_table",
]

_TONES = {HOLDS: "good", FAILS: "bad", WITHIN: "even", UNKNOWN: ""}
_SIGNS = {HOLDS: "✓ ", FAILS: "✗ ", WITHIN: "≈ ", UNKNOWN: ""}
BASELINES = ("baseline", "projection")


def groups(bench: Bench) -> list[tuple[str, list[Method]]]:
    """(heading, methods): baselines; each full method before its variants; what stands alone."""
    heads = [m for m in bench.methods if bench.full(m) is None]
    families = [(head, _below(bench, head)) for head in heads]
    baselines = [head for head, variants in families if head.name in BASELINES and not variants]
    found = [("Baselines", baselines)] if baselines else []
    found += [(f"{head.title} and variants", [head, *variants]) for head, variants in families if variants]
    alone = [head for head, variants in families if not variants and head not in baselines]
    return found + ([("Other methods", alone)] if alone else [])


def _below(bench: Bench, method: Method) -> list[Method]:
    """The variants of a method, each before its own."""
    return [m for variant in bench.variants(method) for m in (variant, *_below(bench, variant))]


def over_seeds(spreads: Iterable[Spread]) -> str:
    """What figures are: of one seed, or means over several."""
    return "mean ± standard deviation over seeds" if max((s.n for s in spreads), default=1) > 1 else "one seed"


def task_table(bench: Bench, task: Task) -> Table | None:
    """Seen, unseen and harmonic mean of every method, and how far variants are from their full method.

    None where no method of the benchmark does the task.
    """
    best = best_means(bench, task)
    rows = []
    for heading, methods in groups(bench):
        methods = [m for m in methods if task in m.tasks]
        if methods:
            rows.append(Row([Cell(heading)], "group"))
        rows += [_task_row(bench, method, task, best) for method in methods]
    if not rows:
        return None
    columns = ["Method", "Seen", "Unseen", "Harmonic mean", "Δ to full", "n"]
    what = over_seeds(spread_of(bench, m.name, task, task.seen) for m in bench.methods)
    return Table(f"{task.title}: {task.metric}, {what}", columns, rows)


def _task_row(bench: Bench, method: Method, task: Task, best: dict[str, float]) -> Row:
    full = bench.full(method)
    spreads = {figure: spread_of(bench, method.name, task, figure) for figure in task.figures}
    cells = [Cell(method.title)]
    runs = len(bench.runs_of(method.name))
    if not runs:
        return Row([*cells, Cell("not run"), *[Cell(MISSING)] * 4], "sub" if full else "")
    cells += [_value(s, best=s.mean is not None and s.mean == best.get(f)) for f, s in spreads.items()]
    cells.append(_value(paired(bench, method.name, full.name, task, task.harmonic), signed=True) if full else Cell(""))
    numbers = {s.n for s in spreads.values()}
    return Row([*cells, Cell("–".join(map(str, sorted({min(numbers), max(numbers)}))))], "sub" if full else "")


def paired_table(bench: Bench) -> Table | None:
    """Variants minus their full method, paired by seed, on each method's main task; None without variants."""
    rows = []
    for full in bench.methods:
        variants = bench.variants(full)
        if variants:
            metric = variants[0].main_task.metric
            rows.append(Row([Cell(f"{full.title} and variants: {metric} minus that of {full.title}")], "group"))
        for method in variants:
            task = method.main_task
            differences = [paired(bench, method.name, full.name, task, figure) for figure in task.figures]
            values = differences[-1].values
            lower = f"{sum(v < 0 for v in values.values())} of {len(values)}" if values else MISSING
            cells = [Cell(method.title), *(_value(d, signed=True) for d in differences), Cell(lower)]
            rows.append(Row(cells))
    if not rows:
        return None
    columns = ["Variant", "Δ seen", "Δ unseen", "Δ harmonic mean", "Seeds below full"]
    return Table("Differences to the full method, paired by seed", columns, rows)


def methods_table(bench: Bench) -> Table:
    """What each method leaves out, how long it trained and how long that took."""
    rows = []
    for heading, methods in groups(bench):
        rows.append(Row([Cell(heading)], "group"))
        for method in methods:
            runs = bench.runs_of(method.name)
            seconds = [run.seconds for run in runs if run.seconds is not None]
            mean = duration(total(seconds) / len(seconds)) if seconds else MISSING
            iterations = MISSING if method.iterations is None else f"{method.iterations:,}"
            seeds = ", ".join(str(run.seed) for run in runs) or "not run"
            removed = method.removes or ("" if bench.full(method) is None else "nothing (an addition)")
            cells = [Cell(method.title), Cell(removed), Cell(iterations), Cell(mean), Cell(seeds)]
            rows.append(Row(cells, "sub" if bench.full(method) else ""))
    columns = ["Method", "Leaves out", "Iterations", "Time per run", "Seeds"]
    return Table("The methods", columns, rows, text=(1,))


def reading_table(found: Iterable[Expectation]) -> Table:
    """Every comparison with its verdict."""
    rows = []
    for expectation in found:
        what = "harmonic mean" if expectation.figure == "harmonic" else "unseen classes"
        rows.append(Row([Cell(f"{expectation.title} ({what}): {_verdict(expectation.verdict)}")], "group"))
        for c in expectation.comparisons:
            cells = [Cell(c.label)]
            for task in TASKS:
                cells.append(_value(c.differences[task], signed=c.signed) if task in c.differences else Cell(""))
            mark = f"{_verdict(c.verdict)}{' (one seed)' if c.one_seed else ''}"
            rows.append(Row([*cells, Cell(mark, tone=_TONES[c.verdict])], "sub"))
    columns = ["Comparison", *(task.metric for task in TASKS), "Verdict"]
    return Table("Expectations and what came out", columns, rows, text=(4,))


def duration(seconds: float) -> str:
    """ "42 s", "7 min", "2.3 h"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _verdict(text: str) -> str:
    return f"{_SIGNS[text]}{text}"


def _value(value: Spread, best: bool = False, signed: bool = False) -> Cell:
    return Cell(*value.parts(signed), best=best)
