"""The first lines of the report, computed from the numbers: what came out, what was run, on what, and how long."""

from minibench.bench import Bench
from minibench.display import duration
from minibench.methods import Method
from minibench.report.document import Bullets, Section, Text, say
from minibench.report.reading import FAILS, HOLDS, WITHIN, Expectation, once_each


def headline_section(bench: Bench, found: list[Expectation]) -> Section:
    """What a reader in a hurry reads, without a heading."""
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
    """What a main method reaches, beside the baselines; "" if it was not run."""
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
