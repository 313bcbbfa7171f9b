"""The sections of numbers: tables by task, differences of the variants, and what was run for how long."""

from collections.abc import Iterable

from minibench.bench import MISSING, Bench, Spread
from minibench.comparisons import Comparison
from minibench.display import duration
from minibench.methods import INSTANCE, PANOPTIC, TASKS, Method, Task
from minibench.paired import BETTER, LEVEL, MARGIN, UNDECIDED, WORSE
from minibench.report import charts
from minibench.report.charts import Album
from minibench.report.document import Block, Cell, Images, Row, Section, Table, Text, heading, say


def results_section(bench: Bench, album: Album) -> Section:
    """Seen, unseen and harmonic mean of every method, by task: charts and tables."""
    images = []
    for task in (PANOPTIC, INSTANCE):
        methods = [m for _, group in groups(bench) for m in group if task in m.tasks]
        rows = [(m.title, [bench.spread(m, task, metric) for metric in task.metrics]) for m in methods]
        rows = [(title, spreads) for title, spreads in rows if any(s.n for s in spreads)]
        if rows:
            caption = f"**{task.title}**, {task.metric}: {_over_seeds(s for _, row in rows for s in row)}."
            alt = f"{task.metric} on seen and unseen classes and its harmonic mean for {len(rows)} methods, as in the "
            alt += f"table of {task.title.lower()}."
            images.append(album.chart(f"overview_{task.key}", charts.overview(rows, task), alt, caption))
    tables = [table for task in TASKS if (table := task_table(bench, task))]
    return Section("Results", "results", [Images(images), *tables, Text(say("results"), "note")])


def difference_section(bench: Bench, found: Iterable[Comparison], album: Album) -> Section:
    """Variants minus their full method."""
    tests = {(c.upper.name, c.lower.name): c for c in found}
    images = []
    for full in bench.methods:
        variants = [m for m in bench.variants(full) if bench.runs_of(m.name)]
        if not variants:
            continue
        task = variants[0].main_task
        rows = []
        for m in variants:
            comparison = tests.get((full.name, m.name)) or tests.get((m.name, full.name))
            line = comparison.lines.get(task) if comparison else None
            test, verdict = (line.test, line.found.verdict) if line else (None, UNDECIDED)
            half = (test.high - test.low) / 2 if test else None
            title = f"without {m.removes}" if m.removes else m.title
            rows.append((title, bench.difference(m, full, task, task.harmonic), half, verdict in (BETTER, WORSE)))
        if any(difference.n for _, difference, _, _ in rows):
            caption = f"**{full.title}**: harmonic mean of {task.metric} minus that of the full method. Dots: seeds. "
            caption += f"Lines: {100 - 100 * LEVEL:.0f} % intervals. Grey bars: undecided or equivalent. Grey strip: "
            caption += f"differences of less than {MARGIN:g} points."
            chart = charts.difference_plot(rows, MARGIN, f"Δ harmonic mean of {task.metric} (points)")
            alt = f"Differences of {len(rows)} variants to {full.title} in {task.metric}, as in the table below."
            images.append(album.chart(f"components_{full.name}", chart, alt, caption))
    table: Block = paired_table(bench) or Text("No ablation was run.", "note")
    return Section("Differences of the variants", "components", [Images(images), table])


def methods_section(bench: Bench) -> Section:
    """What each method leaves out, its iterations and its time."""
    rows = []
    for title, methods in groups(bench):
        rows.append(heading(title))
        for method in methods:
            runs, full = bench.runs_of(method.name), bench.full(method)
            seconds = [run.seconds for run in runs if run.seconds is not None]
            iterations = method.iterations.get(bench.budget)
            texts = [
                method.title,
                method.removes or ("nothing (an addition)" if full else ""),
                MISSING if iterations is None else f"{iterations:,}",
                duration(sum(seconds) / len(seconds)) if seconds else MISSING,
                ", ".join(str(run.seed) for run in runs) or "not run",
            ]
            rows.append(Row(list(map(Cell, texts)), "sub" if full else ""))
    columns = ["Method", "Leaves out", "Iterations", "Time per run", "Seeds"]
    table = Table("The methods", columns, rows, text=(1,))
    return Section("Methods and time", "methods", [table, Text(say("times"), "note")])


def groups(bench: Bench) -> list[tuple[str, list[Method]]]:
    """(heading, methods): the baselines, then each full method before its variants, then all others."""
    families = [(m, _below(bench, m)) for m in bench.methods if bench.full(m) is None]
    alone = [head for head, variants in families if not variants]
    simple = bench.with_role("pretraining", "baseline")
    found = [("Baselines", [m for m in alone if m in simple])]
    found += [(f"{head.title} and variants", [head, *variants]) for head, variants in families if variants]
    found += [("Other methods", [m for m in alone if m not in simple])]
    return [(heading, methods) for heading, methods in found if methods]


def _below(bench: Bench, method: Method) -> list[Method]:
    """The variants of a method; each variant comes before its own variants."""
    return [m for variant in bench.variants(method) for m in (variant, *_below(bench, variant))]


def task_table(bench: Bench, task: Task) -> Table | None:
    """Seen, unseen and harmonic mean of every method, and the difference of variants to their full method.

    None if no method does the task. Bold: the highest mean of a column, if it is above zero.
    """
    spreads = {m.name: [bench.spread(m, task, metric) for metric in task.metrics] for m in bench.methods}
    best = [max((s.mean or 0.0 for s in column), default=0.0) for column in zip(*spreads.values(), strict=True)]
    rows = []
    for title, group in groups(bench):
        methods = [m for m in group if task in m.tasks]
        rows += [heading(title)] if methods else []
        for method in methods:
            full = bench.full(method)
            cells = [Cell(method.title), Cell("not run"), *[Cell(MISSING)] * 4]
            if bench.runs_of(method.name):
                own = spreads[method.name]
                delta = value(bench.difference(method, full, task, task.harmonic), signed=True) if full else Cell("")
                n = "–".join(map(str, sorted({min(s.n for s in own), max(s.n for s in own)})))
                metrics = [value(s, best=bool(s.mean) and s.mean == top) for s, top in zip(own, best, strict=True)]
                cells = [cells[0], *metrics, delta, Cell(n)]
            rows.append(Row(cells, "sub" if full else ""))
    columns = ["Method", "Seen", "Unseen", "Harmonic mean", "Δ to full", "n"]
    caption = f"{task.title}: {task.metric}, {_over_seeds(own[0] for own in spreads.values())}"
    return Table(caption, columns, rows) if rows else None


def paired_table(bench: Bench) -> Table | None:
    """Variants minus their full method, paired by seed, on each method's main task; None without variants."""
    rows = []
    for full in bench.methods:
        variants = bench.variants(full)
        if variants:
            metric = variants[0].main_task.metric
            rows.append(heading(f"{full.title} and variants: {metric} minus that of {full.title}"))
        for method in variants:
            task = method.main_task
            differences = [bench.difference(method, full, task, metric) for metric in task.metrics]
            values = differences[-1].values.values()
            lower = f"{sum(v < 0 for v in values)} of {len(values)}" if values else MISSING
            rows.append(Row([Cell(method.title), *(value(d, signed=True) for d in differences), Cell(lower)]))
    columns = ["Variant", "Δ seen", "Δ unseen", "Δ harmonic mean", "Seeds below full"]
    caption = "Differences to the full method, paired by seed: mean ± standard deviation"
    return Table(caption, columns, rows) if rows else None


def value(spread: Spread, best: bool = False, signed: bool = False) -> Cell:
    """A cell with a mean and its deviation."""
    return Cell(*spread.parts(signed), best=best)


def _over_seeds(spreads: Iterable[Spread]) -> str:
    return "mean ± standard deviation over seeds" if max((s.n for s in spreads), default=1) > 1 else "one seed"
