"""What the papers lead one to expect, and whether it holds on these numbers.

A comparison is judged by its difference paired by seed: it *holds* when the mean difference is on the expected side and
larger than its own standard deviation, *does not hold* when it is so on the other side, and lies *within the spread*
otherwise. With one seed there is no spread, and the sign alone counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from minibench.bench import Bench, Spread
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
        main: the task that decides. differences: paired, by task; or plain values.
        signed: whether ``differences`` are differences.
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
    """All of them, computed; where a method was not run, its comparison says so."""
    references = bench.with_role("pretraining")
    zero = [_zero(bench, reference) for reference in references]
    above = [_above(bench, m, r, "unseen") for r in references for m in bench.methods if m is not r]
    found = [
        Expectation("The baseline cannot name unseen classes", "unseen", zero),
        Expectation("Every zero-shot method names unseen classes better than the baseline", "unseen", above),
    ]
    for declared in bench.declared.values():
        for name, words in declared.expected_above.items():
            upper, lower = bench.method(declared.name), bench.method(name)
            lines = [_above(bench, upper, lower, "harmonic")] if upper and lower else []
            found.append(Expectation(f"{declared.title} is above {words}", "harmonic", lines))
    for full in bench.methods:
        removed = [_above(bench, full, m, "harmonic") for m in bench.variants(full) if m.removes]
        added = [_above(bench, m, full, "harmonic") for m in bench.variants(full) if not m.removes]
        if removed:
            found.append(Expectation(f"Each ablation is below the full {full.title}", "harmonic", removed))
        if added:
            found.append(Expectation(f"Each addition is above {full.title} alone", "harmonic", added))
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
    """All comparisons; one that stands under two expectations counts once."""
    return list({(c.text, e.metric): (e, c) for e in found for c in e.comparisons}.values())


def contradictions(found: Iterable[Expectation]) -> list[tuple[Expectation, Comparison]]:
    """The comparisons that came out on the wrong side, each once."""
    return [(e, c) for e, c in once_each(found) if c.verdict == FAILS]


def reading_section(found: list[Expectation]) -> Section:
    """Every comparison with its verdict, and those against expectation once more."""
    rows = []
    for expectation in found:
        metric = _METRICS[expectation.metric]
        rows.append(heading(f"{expectation.title} ({metric}): {_marked(expectation.verdict)}"))
        for c in expectation.comparisons:
            cells = [value(c.differences[t], signed=c.signed) if t in c.differences else Cell("") for t in TASKS]
            mark = f"{_marked(c.verdict)}{' (one seed)' if c.one_seed else ''}"
            rows.append(Row([Cell(c.label), *cells, Cell(mark, tone=_TONES[c.verdict])], "sub"))
    columns = ["Comparison", *(task.metric for task in TASKS), "Verdict"]
    table = Table("Expectations and what came out", columns, rows, text=(4,))
    section = Section("Reading", "reading", [Text(say("reading")), table])
    wrong = [
        f"{c.text}: {c.differences[c.main].text(signed=c.signed)} {c.main.metric} ({_METRICS[e.metric]})"
        for e, c in contradictions(found)
    ]
    section.blocks += [Text("Against expectation on this data:"), Bullets(wrong)] if wrong else []
    return section


def _marked(text: str) -> str:
    return f"{_SIGNS[text]}{text}"


def as_json(found: list[Expectation]) -> list[dict]:
    """For ``summary.json``."""
    return [
        {
            "title": e.title,
            "figure": e.metric,
            "verdict": e.verdict,
            "comparisons": [
                {
                    "text": c.text,
                    "verdict": c.verdict,
                    "task": c.main.key,
                    "differences": {t.key: {"mean": s.mean, "sd": s.sd, "n": s.n} for t, s in c.differences.items()},
                }
                for c in e.comparisons
            ],
        }
        for e in found
    ]
