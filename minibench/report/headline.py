"""The first lines of the report, computed from the numbers: what came out, what was run, on what, and how long."""

from minibench.report.bench import INSTANCE, PANOPTIC, Bench
from minibench.report.document import Bullets
from minibench.report.reading import FAILS, HOLDS, WITHIN, Expectation, once_each, role
from minibench.report.statistics import spread_of, total
from minibench.report.tables import duration

__all__ = ["about", "outcome"]


def outcome(bench: Bench, found: list[Expectation]) -> str:
    """One sentence about the main methods, and one about how many comparisons came out as expected."""
    baseline, projection, pading, d2zero = (role(bench, p) for p in ("baseline", "projection", "pading", "d2zero"))
    parts = []
    for method, task, others in ((pading, PANOPTIC, (baseline, projection)), (d2zero, INSTANCE, (baseline,))):
        if method is None:
            continue
        unseen = spread_of(bench, method.name, task, task.unseen)
        if not unseen.n:
            continue
        against = [
            f"{_inner(other.title)}: {spread_of(bench, other.name, task, task.unseen).text()}"
            for other in others
            if other and spread_of(bench, other.name, task, task.unseen).n
        ]
        harmonic = spread_of(bench, method.name, task, task.harmonic)
        text = f"{method.title} reaches {task.metric} {unseen.text()} on unseen classes"
        text += f" ({'; '.join(against)})" if against else ""
        parts.append(f"{text} and a harmonic mean of {harmonic.text()}")
    sentence = "; ".join(parts) + "." if parts else "Neither PADing nor D2Zero was run."
    verdicts = [c.verdict for _, c in once_each(found)]
    counts = [verdicts.count(v) for v in (HOLDS, WITHIN, FAILS)]
    if sum(counts):
        sentence += (
            f" Of {sum(counts)} comparisons with what the papers lead one to expect, as expected: {counts[0]}; within "
            f"the spread of the seeds: {counts[1]}; against expectation: {counts[2]}."
        )
        sentence += " There is one seed, so the sign alone decides." if len(bench.seeds) == 1 else ""
    return sentence


def about(bench: Bench) -> list:
    """Bullets: methods, data, machine, time; what results.json does not say is left out."""
    data, machine = bench.data, bench.machine
    seeds = f"{'seed' if len(bench.seeds) == 1 else 'seeds'} {', '.join(map(str, bench.seeds)) or '–'}"
    counts = f"{_count(len(bench.methods), 'method')}, {_count(len(bench.runs), 'run')}"
    items = [f"**Run**: {counts}, budget `{bench.budget}`, {seeds}."]
    pictures = [f"{data[key]} {name}" for key, name in (("train", "training"), ("val", "validation")) if key in data]
    size = f" of {data['size']} × {data['size']} px" if "size" in data else ""
    parts = [f"mini benchmark v{data['version']}" if "version" in data else "mini benchmark", f"{bench.split} split"]
    parts += [f"{' and '.join(pictures)} pictures{size}"] if pictures else []
    parts += [f"noise of the class vectors {data['noise']}"] if "noise" in data else []
    items.append(f"**Data**: {', '.join(parts)}; every seed has its own pictures and its own pretraining.")
    checksum = data.get("checksum")
    if checksum:
        sums = checksum.items() if isinstance(checksum, dict) else [("all", checksum)]
        shown = ", ".join(f"`{str(value)[:12]}` (seed {seed})" for seed, value in sums)
        items.append(f"**Checksum of the annotation** (SHA-256, first digits): {shown}.")
    programs = (("torch", "PyTorch"), ("python", "Python"))
    versions = [f"{name} {machine[key]}" for key, name in programs if key in machine]
    hardware = [machine["cpu"]] if machine.get("cpu") else []
    hardware += [_count(machine["cores"], "core")] if "cores" in machine else []
    if hardware or versions:
        items.append(f"**Machine**: {', '.join(hardware + versions)}.")
    seconds = total(run.seconds for run in bench.runs)
    if seconds:
        items.append(f"**Time**: {duration(seconds)} of training and evaluation, summed over all runs.")
    return [Bullets(items)]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _inner(title: str) -> str:
    """A title inside a sentence: only names keep their capital letter."""
    first = title.split(" ")[0]
    return title if any(c.isupper() or c.isdigit() for c in first[1:]) else title[:1].lower() + title[1:]
