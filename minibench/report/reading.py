"""The verdicts on all comparisons, and the first lines of the report."""

from collections.abc import Mapping, Sequence
from statistics import median

from minibench.bench import MISSING, Bench
from minibench.comparisons import TWIN, Comparison, Line, compare, names_no_unseen
from minibench.display import duration
from minibench.methods import Method, Task
from minibench.paired import BETTER, EQUIVALENT, LEVEL, MARGIN, NOT_RUN, POWER, UNDECIDED, WORSE
from minibench.report.document import Block, Bullets, Cell, Row, Section, Table, Text, heading, say
from minibench.report.results import value

_TONES = {BETTER: "good", WORSE: "bad", EQUIVALENT: "even", UNDECIDED: "", NOT_RUN: ""}
_SIGNS = {BETTER: "✓ ", WORSE: "✗ ", EQUIVALENT: "= ", UNDECIDED: "? ", NOT_RUN: ""}
_INTERVAL = f"{100 - 100 * LEVEL:.0f} % interval"
_RULE = {"level": 100 * LEVEL, "power": 100 * POWER, "margin": MARGIN, "twin": TWIN}


def headline_section(bench: Bench, found: Sequence[Comparison]) -> Section:
    """The summary at the top; it has no heading."""
    seconds = sum(run.seconds or 0.0 for run in bench.runs)
    values = {"methods": len({run.method.name for run in bench.runs}), "time": seconds and duration(seconds)}
    about = say("about", bench=bench, data=bench.data, machine=bench.machine, **values)
    items = [line for line in about.splitlines() if line]
    return Section("", "top", [Text(outcome(bench, found), "lead"), Bullets(items)])


def outcome(bench: Bench, found: Sequence[Comparison]) -> str:
    """What the main methods reach, how many comparisons are decided, and how large a difference has to be for it."""
    parts = [part for method in bench.with_role("main") if (part := _reached(bench, method))]
    lines = [line for comparison in found for line in comparison.lines.values() if line.difference.n]
    verdicts = [line.found.verdict for line in lines]
    counts = {verdict: verdicts.count(verdict) for verdict in (BETTER, WORSE, EQUIVALENT, UNDECIDED)}
    detectable = [line.test.detectable for line in lines if line.test]
    power = {"most": max(detectable), "median": median(detectable)} if detectable else None
    seeds = sorted({line.difference.n for line in lines})
    return say("outcome", bench=bench, parts=parts, counts=counts, seeds=seeds, detectable=power, **_RULE)


def _reached(bench: Bench, method: Method) -> str:
    """The metrics of a main method and of the baselines that name unseen classes; "" if it was not run."""
    task = method.main_task
    blind = names_no_unseen(bench)
    baselines = [m for m in bench.with_role("baseline") if m.name in method.expected_above and m not in blind]
    beside = [(m, bench.spread(m, task, task.harmonic)) for m in baselines]
    against = [f"{_inner(m.title)}: {spread.text()}" for m, spread in beside if spread.n]
    unseen, harmonic = (bench.spread(method, task, metric) for metric in (task.unseen, task.harmonic))
    values = {"unseen": unseen.text(), "harmonic": harmonic.text(), "against": against}
    return say("reached", title=method.title, metric=task.metric, **values) if unseen.n else ""


def _inner(title: str) -> str:
    """A title inside a sentence: only names keep their capital letter."""
    first = title.split(" ")[0]
    return title if any(c.isupper() or c.isdigit() for c in first[1:]) else title[:1].lower() + title[1:]


def reading_section(bench: Bench, found: Sequence[Comparison], other: Bench | None) -> Section:
    """Every comparison with its test and verdict; then those with the seeds of other hyperparameters."""
    blocks: list[Block] = [Text(say("reading", **_RULE)), Bullets(say("rules", **_RULE).splitlines())]
    if rows := [row for comparison in found for row in _rows(comparison)]:
        columns = ["Task", "n", "Difference", _INTERVAL, "p (Holm)", "Detectable", "Verdict"]
        blocks.append(Table("Differences of harmonic means, in points", columns, rows, text=(6,)))
    else:
        blocks.append(Text("No methods that are compared were run.", "note"))
    if blind := [m.title for m in names_no_unseen(bench)]:
        blocks.append(Text(say("blind", titles=blind), "note"))
    if other and (pooled := _pooled_table(bench, other)):
        blocks += [Text(say("pooled")), pooled]
    return Section("Verdicts", "verdicts", blocks)


def _rows(comparison: Comparison) -> list[Row]:
    """A heading, and a line for each task."""
    verdict = "" if len(comparison.lines) == 1 else f": {marked(comparison.verdict)} in {comparison.main.metric}"
    note = f"; other {', '.join(comparison.unequal)}" if comparison.unequal else ""
    rows = [heading(f"{comparison.text}{note}{verdict}")]
    for task, line in comparison.lines.items():
        mark = marked(line.found.verdict) + (" (one seed)" if line.difference.n == 1 else "")
        p = MISSING if line.found.p is None else p_text(line.found.p)
        cells = [Cell(task.metric), Cell(str(line.difference.n)), value(line.difference, signed=True)]
        cells += [*map(Cell, (interval(line), p, detectable(line))), Cell(mark, tone=_TONES[line.found.verdict])]
        rows.append(Row(cells, "sub"))
    return rows


def _pooled_table(bench: Bench, other: Bench) -> Table | None:
    """Main tasks over all seeds of both; None if ``other`` adds no seed to a comparison."""
    both = bench.with_runs_of(other)
    pairs = {(c.upper.name, c.lower.name): c for c in compare(bench)}
    rows = []
    for c in compare(both):
        line, before = c.lines[c.main], pairs.get((c.upper.name, c.lower.name))
        if line.test and (before is None or before.lines[c.main].difference.n < line.difference.n):
            seeds = ", ".join(map(str, line.difference.values))
            texts = [c.text, c.main.metric, seeds]
            rows.append(Row([*map(Cell, texts), value(line.difference, signed=True), Cell(interval(line))]))
    columns = ["Comparison", "Metric", "Seeds", "Difference", _INTERVAL]
    caption = "Differences of harmonic means with all seeds, also those with other hyperparameters, in points"
    return Table(caption, columns, rows, text=(1, 2)) if rows else None


def interval(line: Line) -> str:
    """The confidence interval as text."""
    if line.test is None:
        return MISSING
    return " to ".join(_signed(bound) for bound in (line.test.low, line.test.high))


def detectable(line: Line) -> str:
    """The smallest difference that the test finds, as text."""
    return MISSING if line.test is None else f"{line.test.detectable:.1f}"


def p_text(p: float) -> str:
    """A p value with as many digits as matter."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _signed(number: float) -> str:
    text = f"{number:+.1f}"
    return text.replace("-", "−") if float(text) else text.lstrip("+-")


def marked(verdict: str) -> str:
    """A verdict with its sign."""
    return f"{_SIGNS[verdict]}{verdict}"


def as_json(found: Sequence[Comparison]) -> list[dict]:
    """For ``summary.json``."""

    def numbers(lines: Mapping[Task, Line]) -> dict[str, dict]:
        return {task.key: _numbers(line) for task, line in lines.items()}

    return [
        {"upper": c.upper.name, "lower": c.lower.name, "claim": c.claim, "task": c.main.key, "verdict": c.verdict}
        | {"other_hyperparameters": list(c.unequal), "tests": numbers(c.lines)}
        for c in found
    ]


def _numbers(line: Line) -> dict:
    difference, test, found = line.difference, line.test, line.found
    about = {"mean": difference.mean, "sd": difference.sd, "n": difference.n, "verdict": found.verdict}
    keys = ("low", "high", "p", "p_equivalent", "detectable")
    corrected = {"p_holm": found.p, "p_equivalent_holm": found.p_equivalent}
    return about | {key: getattr(test, key) if test else None for key in keys} | corrected
