"""What is compared: pairs of methods of which one is expected to be better, with tests and verdicts of one family."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from minibench.bench import Bench, Spread
from minibench.methods import INSTANCE, PANOPTIC, TASKS, Method, Task
from minibench.paired import NOT_RUN, UNDECIDED, Judgement, PairedTest, judge, paired_test

# A baseline names no unseen class if its metrics on unseen classes are all shown as 0.0.
ZERO = 0.05
# Variants whose metrics differ by less in every seed are one row, in points.
TWIN = 0.5


@dataclass(frozen=True)
class Line:
    """Harmonic means of one task. ``difference``: paired by seed; ``test``: None with fewer than two seeds."""

    difference: Spread
    test: PairedTest | None
    found: Judgement = Judgement(UNDECIDED)


@dataclass(frozen=True)
class Comparison:
    """Whether ``upper`` is better than ``lower``, as one expects.

    Attributes:
        claim: the expectation in words. main: the task that decides. lines: by task.
        unequal: the last parts of the config keys of hyperparameters that were tuned and differ.
    """

    upper: Method
    lower: Method
    claim: str
    main: Task
    lines: Mapping[Task, Line]
    unequal: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The difference in words."""
        return f"{self.upper.title} − {self.lower.title}"

    @property
    def verdict(self) -> str:
        """The verdict on the main task."""
        return self.lines[self.main].found.verdict


def compare(bench: Bench) -> list[Comparison]:
    """All comparisons, each pair of methods once. The harmonic means of all tasks are one family of tests.

    Comparisons with a method that names no unseen class are left out, because their outcome is known before.
    """
    found: dict[tuple[str, str], Comparison] = {}
    blind = {method.name for method in names_no_unseen(bench)}
    for upper, lower, claim in _pairs(bench):
        if not {upper.name, lower.name} & blind:
            found.setdefault((upper.name, lower.name), _comparison(bench, upper, lower, claim))
    return _judged(list(found.values()))


def names_no_unseen(bench: Bench) -> list[Method]:
    """The pretraining and the baselines whose metrics on unseen classes are zero in every seed and task.

    Other methods should have better ones: where theirs are zero, the comparisons must show it.
    """

    def highest(method: Method) -> float | None:
        values = [v for t in method.tasks for v in bench.values(method.name, t, t.unseen).values()]
        return max(map(abs, values), default=None)

    simple = bench.with_role("pretraining", "baseline")
    return [m for m in simple if (value := highest(m)) is not None and value < ZERO]


def merge_twins(bench: Bench) -> Bench:
    """The same without variants that are twins: variants of one method whose metrics are the same in every seed.

    Of twins, the one that leaves out least stays, with both titles.
    """
    gone: set[str] = set()
    titles: dict[str, str] = {}
    for full in bench.methods:
        variants = sorted(bench.variants(full), key=lambda m: len(m.removes))
        for i, kept in enumerate(variants):
            same = [m for m in variants[i + 1 :] if m.name not in gone and _are_twins(bench, kept, m)]
            if kept.name not in gone and same:
                gone |= {m.name for m in same}
                titles[kept.name] = f"{kept.title} (the same: {', '.join(m.title for m in same)})"
    if not gone:
        return bench
    methods = {m.name: replace(m, title=titles.get(m.name, m.title)) for m in bench.methods if m.name not in gone}
    runs = tuple(replace(run, method=methods[run.method.name]) for run in bench.runs if run.method.name in methods)
    return replace(bench, methods=tuple(methods.values()), runs=runs, declared={**bench.declared, **methods})


def _are_twins(bench: Bench, first: Method, second: Method) -> bool:
    if bench.variants(second) or first.tasks != second.tasks:
        return False
    differences = [bench.difference(first, second, t, metric) for t in first.tasks for metric in t.metrics]
    seeds = [{run.seed for run in bench.runs_of(m.name)} for m in (first, second)]
    values = [abs(v) for d in differences for v in d.values.values()]
    return bool(values) and seeds[0] == seeds[1] and max(values) < TWIN


def _pairs(bench: Bench) -> Iterable[tuple[Method, Method, str]]:
    """(upper, lower, the expectation)."""
    for declared in bench.declared.values():
        for name, words in declared.expected_above.items():
            upper, lower = bench.method(declared.name), bench.method(name)
            if upper and lower:
                yield upper, lower, f"{upper.title} is better than {words}"
    for full in bench.methods:
        for variant in bench.variants(full):
            if variant.removes:
                yield full, variant, f"{full.title} is better with {variant.removes}"
            else:
                yield variant, full, f"{variant.title} is better than {full.title}"


def _comparison(bench: Bench, upper: Method, lower: Method, claim: str) -> Comparison:
    main = INSTANCE if INSTANCE in (upper.main_task, lower.main_task) else PANOPTIC
    lines = {}
    for task in TASKS:
        if task in upper.tasks and task in lower.tasks:
            difference = bench.difference(upper, lower, task, task.harmonic)
            lines[task] = Line(difference, paired_test(list(difference.values.values())))
    first, second = upper.hyperparameters, lower.hyperparameters
    unequal = tuple(key.rpartition(".")[2] for key in first.keys() & second.keys() if first[key] != second[key])
    return Comparison(upper, lower, claim, main, lines, tuple(sorted(unequal)))


def _judged(comparisons: list[Comparison]) -> list[Comparison]:
    family = [(c, task) for c in comparisons for task in c.lines]
    found = iter(judge([c.lines[task].test for c, task in family]))
    judged = []
    for comparison in comparisons:
        lines = {}
        for task, line in comparison.lines.items():
            judgement = next(found)
            lines[task] = replace(line, found=judgement if line.difference.n else Judgement(NOT_RUN))
        judged.append(replace(comparison, lines=lines))
    return judged
