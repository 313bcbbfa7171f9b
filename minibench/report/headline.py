"""The first lines of the report, computed from the numbers: what came out, what was run, on what, and how long."""

from minibench.bench import Bench
from minibench.display import duration
from minibench.methods import Method
from minibench.report.document import Bullets, Section, Text
from minibench.report.reading import FAILS, HOLDS, WITHIN, Expectation, once_each


def headline_section(bench: Bench, found: list[Expectation]) -> Section:
    """What a reader in a hurry reads, without a heading."""
    return Section("", "top", [Text(outcome(bench, found), "lead"), Bullets(_about(bench))])


def outcome(bench: Bench, found: list[Expectation]) -> str:
    """One sentence about the main methods, and one about how many comparisons came out as expected."""
    parts = [part for method in bench.with_role("main") if (part := _reached(bench, method))]
    titles = [method.title for method in bench.declared.values() if method.role == "main"]
    sentence = "; ".join(parts) + "." if parts else f"Neither {' nor '.join(titles)} was run."
    verdicts = [c.verdict for _, c in once_each(found)]
    counts = [verdicts.count(v) for v in (HOLDS, WITHIN, FAILS)]
    if sum(counts):
        sentence += (
            f" Of {sum(counts)} comparisons with what the papers lead one to expect, as expected: {counts[0]}; within "
            f"the spread of the seeds: {counts[1]}; against expectation: {counts[2]}."
        )
        sentence += " There is one seed, so the sign alone decides." if len(bench.seeds) == 1 else ""
    return sentence


def _reached(bench: Bench, method: Method) -> str:
    """What a main method reaches, beside the baselines; "" if it was not run."""
    task = method.main_task
    unseen = bench.spread(method, task, task.unseen)
    if not unseen.n:
        return ""
    baselines = [m for m in bench.with_role("baseline") if m.name in method.expected_above]
    others = [(m, bench.spread(m, task, task.unseen)) for m in (*bench.with_role("pretraining"), *baselines)]
    against = "; ".join(f"{_inner(m.title)}: {spread.text()}" for m, spread in others if spread.n)
    text = f"{method.title} reaches {task.metric} {unseen.text()} on unseen classes"
    text += f" ({against})" if against else ""
    return f"{text} and a harmonic mean of {bench.spread(method, task, task.harmonic).text()}"


def _about(bench: Bench) -> list[str]:
    """Methods, data, machine, time."""
    data, machine, seeds = bench.data, bench.machine, ", ".join(map(str, bench.seeds)) or "–"
    counts = f"{_count(len(bench.methods), 'method')}, {_count(len(bench.runs), 'run')}"
    sums = ", ".join(f"`{value[:12]}` (seed {seed})" for seed, value in data["checksum"].items())
    programs = [f"PyTorch {machine['torch']}", f"Python {machine['python']}"]
    hardware = filter(None, [machine["cpu"], _count(machine["cores"], "core"), *programs])
    seconds = sum(run.seconds or 0.0 for run in bench.runs)
    items = [
        f"**Run**: {counts}, budget `{bench.budget}`, {'seed' if len(bench.seeds) == 1 else 'seeds'} {seeds}.",
        f"**Data**: mini benchmark v{data['version']}, {bench.split} split, {data['train']} training and {data['val']} "
        f"validation images of {data['size']} × {data['size']} px, noise of the class embeddings {data['noise']}; "
        "every seed has its own images and its own pretraining.",
        f"**Checksum of the annotation** (SHA-256, first digits): {sums}." if sums else "",
        f"**Machine**: {', '.join(hardware)}.",
        f"**Time**: {duration(seconds)} of training and evaluation, summed over all runs." if seconds else "",
    ]
    return list(filter(None, items))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _inner(title: str) -> str:
    """A title inside a sentence: only names keep their capital letter."""
    first = title.split(" ")[0]
    return title if any(c.isupper() or c.isdigit() for c in first[1:]) else title[:1].lower() + title[1:]
