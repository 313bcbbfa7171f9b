"""What the papers lead one to expect, and whether it holds on these numbers.

A comparison is judged by its difference paired by seed: it *holds* when the mean difference is on the expected side and
larger than its own standard deviation, *does not hold* when it is so on the other side, and lies *within the spread*
otherwise. With one seed there is no spread, and the sign alone counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from minibench.report.bench import INSTANCE, PANOPTIC, TASKS, Bench, Method, Task
from minibench.report.statistics import Spread, paired, spread_of

__all__ = ["Comparison", "Expectation", "contradictions", "expectations", "once_each", "role", "verdict"]

HOLDS, FAILS, WITHIN, UNKNOWN = "holds", "does not hold", "within the spread", "not run"
# What is shown as 0.0.
ZERO = 0.05

# Which method plays which part, by name.
_ROLES = {
    "baseline": "baseline",
    "projection": "projection",
    "pading": "pading",
    "d2zero": "d2zero",
    "semantic classifier": "d2zero_plain_classifier",
}


@dataclass(frozen=True)
class Comparison:
    """One line: how far ``upper`` is above ``lower``, by task.

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
        return self.differences[self.main].n == 1


@dataclass(frozen=True)
class Expectation:
    """A statement and the comparisons that it consists of."""

    title: str
    figure: str
    comparisons: list[Comparison] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """The weakest verdict of the comparisons that were run."""
        found = {c.verdict for c in self.comparisons}
        return next((v for v in (FAILS, WITHIN, HOLDS) if v in found), UNKNOWN)


def role(bench: Bench, part: str) -> Method | None:
    """The method that plays a part: baseline, projection, pading, d2zero, semantic classifier."""
    return bench.method(_ROLES[part])


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
    baseline, projection, pading, d2zero, plain = (role(bench, part) for part in _ROLES)
    zero = [_zero(bench, baseline)] if baseline else []
    above = [_above(bench, m, baseline, "unseen") for m in bench.methods if baseline and m is not baseline]
    found = [
        Expectation("The baseline cannot name unseen classes", "unseen", zero),
        Expectation("Every zero-shot method names unseen classes better than the baseline", "unseen", above),
        _one(bench, "PADing is above the projection baseline", pading, projection),
        _one(bench, "D2Zero is above the plain semantic classifier", d2zero, plain),
    ]
    for full in bench.methods:
        removed = [_above(bench, full, m, "harmonic") for m in bench.variants(full) if m.removes]
        added = [_above(bench, m, full, "harmonic") for m in bench.variants(full) if not m.removes]
        if removed:
            found.append(Expectation(f"Each ablation is below the full {full.title}", "harmonic", removed))
        if added:
            found.append(Expectation(f"Each addition is above {full.title} alone", "harmonic", added))
    return found


def _one(bench: Bench, title: str, upper: Method | None, lower: Method | None) -> Expectation:
    return Expectation(title, "harmonic", [_above(bench, upper, lower, "harmonic")] if upper and lower else [])


def once_each(found: Iterable[Expectation]) -> list[tuple[Expectation, Comparison]]:
    """All comparisons; one that stands under two expectations counts once."""
    return list({(c.text, e.figure): (e, c) for e in found for c in e.comparisons}.values())


def contradictions(found: Iterable[Expectation]) -> list[tuple[Expectation, Comparison]]:
    """The comparisons that came out on the wrong side, each once."""
    return [(e, c) for e, c in once_each(found) if c.verdict == FAILS]


def _above(bench: Bench, upper: Method, lower: Method, figure: str) -> Comparison:
    main = INSTANCE if INSTANCE in (upper.main_task, lower.main_task) else PANOPTIC
    shared = [task for task in TASKS if task in upper.tasks and task in lower.tasks]
    differences = {task: paired(bench, upper.name, lower.name, task, getattr(task, figure)) for task in shared}
    text = f"{upper.title} − {lower.title}"
    label = upper.title if lower.name == _ROLES["baseline"] else text
    return Comparison(text, label, main, differences, verdict(differences[main]))


def _zero(bench: Bench, method: Method) -> Comparison:
    values = {task: spread_of(bench, method.name, task, task.unseen) for task in method.tasks}
    numbers = [value for s in values.values() for value in s.values.values()]
    outcome = UNKNOWN if not numbers else HOLDS if max(map(abs, numbers)) < ZERO else FAILS
    return Comparison(method.title, method.title, method.main_task, values, outcome, signed=False)
