"""What the papers suggest, whether it holds in the seeds that were run, and the first lines of the report.

Differences are paired by seed. A comparison *holds* when the mean difference is on the expected side and
larger than its own standard deviation. It *does not hold* when the mean difference is on the other side
and larger than its standard deviation. Otherwise it is *within the spread*. With one seed there is no spread, and the
sign alone counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from minibench.bench import Bench, Spread
from minibench.display import duration
from minibench.methods import INSTANCE, PANOPTIC, TASKS, Method, Task
from minibench.report.document import Bullets, Cell, Row, Section, Table, Text, heading, say
from minibench.report.results import value

HOLDS, FAILS, WITHIN, UNKNOWN = "holds", "does not hold", "within the spread", "not run"
# What is shown as 0.0.
ZERO = 0.05
_TONES = {HOLDS: "good", FAILS: "bad", WITHIN: "even", UNKNOWN: ""}
_SIGNS = {HOLDS: "✓ ", FAILS: "✗ ", WITHIN: "≈ ", UNKNOWN: ""}
_METRICS = {"harmonic": "harmonic mean", "unseen": "unseen classes"}


@dataclass(frozen=True)
class Comparison:
    """One line: how far one method is above another, by task.

    Attributes:
        text: what is compared. label: the same, as short as its place in the table allows.
        main: the task that decides. differences: paired, by task; plain values unless ``signed``.
        verdict: ``HOLDS``, ``FAILS``, ``WITHIN`` or ``UNKNOWN``.
    """

    text: str
    label: str
    main: Task
    differences: dict[Task, Spread]
    verdict: str
    signed: bool = True

    @property
    def one_seed(self) -> bool:
        """Whether the sign alone decided."""
        return self.differences[self.main].n == 1


@dataclass(frozen=True)
class Expectation:
    """A statement about a metric ("unseen" or "harmonic") and the comparisons that it consists of."""

    title: str
    metric: str
    comparisons: list[Comparison] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """The weakest verdict of the comparisons that were run."""
        found = {c.verdict for c in self.comparisons}
        return next((v for v in (FAILS, WITHIN, HOLDS) if v in found), UNKNOWN)


def verdict(difference: Spread) -> str:
    """Whether a difference that should be positive is; see the module."""
    mean, sd = difference.mean, difference.sd
    if mean is None:
        return UNKNOWN
    if sd is None or abs(mean) > sd:
        return HOLDS if mean > 0 else FAILS
    return WITHIN if sd > 0 else FAILS


def expectations(bench: Bench) -> list[Expectation]:
    """All expectations with their comparisons. Comparisons with a method that was not run say so."""
    references = bench.with_role("pretraining")
    zero = [_zero(bench, reference) for reference in references]
    found = [Expectation("The baseline cannot name unseen classes", "unseen", zero)]
    above = [_above(bench, m, r, "unseen") for r in references for m in bench.methods if m is not r]
    found += [Expectation("Every zero-shot method names unseen classes better than the baseline", "unseen", above)]
    for declared in bench.declared.values():
        for name, words in declared.expected_above.items():
            upper, lower = bench.method(declared.name), bench.method(name)
            lines = [_above(bench, upper, lower, "harmonic")] if upper and lower else []
            found.append(Expectation(f"{declared.title} is above {words}", "harmonic", lines))
    for full in bench.methods:
        removed = [_above(bench, full, m, "harmonic") for m in bench.variants(full) if m.removes]
        added = [_above(bench, m, full, "harmonic") for m in bench.variants(full) if not m.removes]
        titles = (f"Each ablation is below the full {full.title}", f"Each addition is above {full.title} alone")
        found += [Expectation(t, "harmonic", c) for t, c in zip(titles, (removed, added), strict=True) if c]
    return found


def _above(bench: Bench, upper: Method, lower: Method, metric: str) -> Comparison:
    main = INSTANCE if INSTANCE in (upper.main_task, lower.main_task) else PANOPTIC
    shared = [task for task in TASKS if task in upper.tasks and task in lower.tasks]
    differences = {task: bench.difference(upper, lower, task, getattr(task, metric)) for task in shared}
    text = f"{upper.title} − {lower.title}"
    label = upper.title if lower.role == "pretraining" else text
    return Comparison(text, label, main, differences, verdict(differences[main]))


def _zero(bench: Bench, method: Method) -> Comparison:
    values = {task: bench.spread(method, task, task.unseen) for task in method.tasks}
    numbers = [number for spread in values.values() for number in spread.values.values()]
    outcome = UNKNOWN if not numbers else HOLDS if max(map(abs, numbers)) < ZERO else FAILS
    return Comparison(method.title, method.title, method.main_task, values, outcome, signed=False)


def once_each(found: Iterable[Expectation]) -> list[tuple[Expectation, Comparison]]:
    """All comparisons, each once, even if it belongs to two expectations."""
    return list({(c.text, e.metric): (e, c) for e in found for c in e.comparisons}.values())


def contradictions(found: Iterable[Expectation]) -> list[tuple[Expectation, Comparison]]:
    """The comparisons that came out on the wrong side, each once."""
    return [(e, c) for e, c in once_each(found) if c.verdict == FAILS]


def reading_section(found: list[Expectation]) -> Section:
    """Every comparison with its verdict, then a list of those against expectation."""
    rows = []
    for expectation in found:
        metric = _METRICS[expectation.metric]
        rows.append(heading(f"{expectation.title} ({metric}): {_marked(expectation.verdict)}"))
        for c in expectation.comparisons:
            cells = [value(c.differences[t], signed=c.signed) if t in c.differences else Cell("") for t in TASKS]
            mark = _marked(c.verdict) + (" (one seed)" if c.one_seed else "")
            rows.append(Row([Cell(c.label), *cells, Cell(mark, tone=_TONES[c.verdict])], "sub"))
    columns = ["Comparison", *(task.metric for task in TASKS), "In these seeds"]
    table = Table("Expectations and results", columns, rows, text=(4,))
    section = Section("Reading", "reading", [Text(say("reading")), table])
    wrong = [
        f"{c.text}: {c.differences[c.main].text(signed=c.signed)} {c.main.metric} ({_METRICS[e.metric]})"
        for e, c in contradictions(found)
    ]
    section.blocks += [Text("Against expectation in these seeds:"), Bullets(wrong)] if wrong else []
    return section


def headline_section(bench: Bench, found: list[Expectation]) -> Section:
    """The summary at the top; it has no heading."""
    seconds = sum(run.seconds or 0.0 for run in bench.runs)
    about = say("about", bench=bench, data=bench.data, machine=bench.machine, time=seconds and duration(seconds))
    items = [line for line in about.splitlines() if line]
    return Section("", "top", [Text(outcome(bench, found), "lead"), Bullets(items)])


def outcome(bench: Bench, found: list[Expectation]) -> str:
    """One sentence about the main methods, and one about how many comparisons came out as expected."""
    parts = [part for method in bench.with_role("main") if (part := _reached(bench, method))]
    verdicts = [c.verdict for _, c in once_each(found)]
    return say("outcome", bench=bench, parts=parts, counts=[verdicts.count(v) for v in (HOLDS, WITHIN, FAILS)])


def _reached(bench: Bench, method: Method) -> str:
    """The metrics of a main method and of the baselines; "" if it was not run."""
    task = method.main_task
    baselines = [m for m in bench.with_role("baseline") if m.name in method.expected_above]
    beside = [(m, bench.spread(m, task, task.unseen)) for m in (*bench.with_role("pretraining"), *baselines)]
    against = [f"{_inner(m.title)}: {spread.text()}" for m, spread in beside if spread.n]
    unseen, harmonic = (bench.spread(method, task, metric) for metric in (task.unseen, task.harmonic))
    values = {"unseen": unseen.text(), "harmonic": harmonic.text(), "against": against}
    return say("reached", title=method.title, metric=task.metric, **values) if unseen.n else ""


def _inner(title: str) -> str:
    """A title inside a sentence: only names keep their capital letter."""
    first = title.split(" ")[0]
    return title if any(c.isupper() or c.isdigit() for c in first[1:]) else title[:1].lower() + title[1:]


def _marked(text: str) -> str:
    return f"{_SIGNS[text]}{text}"


def as_json(found: list[Expectation]) -> list[dict]:
    """For ``summary.json``."""

    def line(c: Comparison) -> dict:
        differences = {t.key: {"mean": s.mean, "sd": s.sd, "n": s.n} for t, s in c.differences.items()}
        return {"text": c.text, "verdict": c.verdict, "task": c.main.key, "differences": differences}

    return [
        {"title": e.title, "figure": e.metric, "verdict": e.verdict, "comparisons": list(map(line, e.comparisons))}
        for e in found
    ]
