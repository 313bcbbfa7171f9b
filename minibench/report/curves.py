"""The sections made from files of the runs: bars by class, and training curves."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from statistics import fmean

from minibench.bench import Bench, Spread, spread
from minibench.methods import INSTANCE, Method, Task
from minibench.report import charts
from minibench.report.charts import Album
from minibench.report.document import Images, Section, Text, say
from minibench.runs import Run
from PADing.errors import UserError
from PADing.files import read_json
from PADing.visualization.curves import read_metrics

# The losses that are drawn, by what metrics.json calls them.
LOSSES = {"total_loss": "sum of all losses", "gan_loss_total_loss": "generator", "id_loss_total_loss": "classifier"}


def class_section(bench: Bench, methods: Iterable[Method], album: Album) -> Section:
    """Bars by class: PQ of panoptic methods, AP50 of instance methods."""
    section, images = Section("Class by class", "classes"), []
    references = bench.with_role("pretraining")
    for method in methods:
        task = method.main_task
        values, unseen = by_class(bench, method, task)
        if not values:
            section.blocks.append(Text(f"{method.title}: no metrics by class.", "note"))
            continue
        reference = by_class(bench, references[0], task)[0] if references else {}
        label = f"{task.metric} (%)"
        found = [(name, s.mean) for name, s in values.items() if s.mean is not None and name in unseen]
        found.sort(key=lambda pair: -pair[1])
        alt = f"Bars of {label} for each seen and unseen class, of {method.title}."
        seeds = max(s.n for s in values.values())
        over = "one seed" if seeds == 1 else f"mean ± standard deviation over {seeds} seeds"
        caption = f"**{method.title}**: {label} by class, {over}."
        caption += f" Black ticks: {references[0].title}." if reference else ""
        caption += " " + say("classes", found=found)
        chart = charts.class_bars(values, unseen, label, reference)
        images.append(album.chart(f"classes_{method.name}", chart, alt, caption))
    section.blocks.append(Images(images))
    return section


def by_class(bench: Bench, method: Method, task: Task) -> tuple[dict[str, Spread], set[str]]:
    """Spread by class name over the seeds, and the names of the unseen classes; both empty without metrics by class."""
    values: dict[str, dict[int, float]] = {}
    unseen: set[str] = set()
    for run in bench.runs_of(method.name):
        for entry in _per_class(run, task):
            unseen |= {entry["name"]} if entry["unseen"] else set()
            if entry[task.metric] is not None:
                values.setdefault(entry["name"], {})[run.seed] = entry[task.metric]
    return {name: spread(numbers) for name, numbers in values.items()}, unseen


def _per_class(run: Run, task: Task) -> list[dict]:
    """What the task's evaluator wrote about each class; empty if it wrote nothing."""
    name = "instance_results.json" if task is INSTANCE else "panoptic_results.json"
    with suppress(UserError, StopIteration):
        found = read_json(next(run.folder.glob(f"inference/**/{name}")), "Results by class").get("per_class") or {}
        return found.get(task.key, []) if task is INSTANCE else list(found)
    return []


def curve_section(bench: Bench, methods: Iterable[Method], album: Album) -> Section:
    """Losses over the iterations: thin lines for the seeds, a bold one for their mean."""
    section, images = Section("Training", "training"), []
    for method in methods:
        curves: dict[str, dict[int, tuple[Sequence[int], Sequence[float]]]] = {}
        for run in bench.runs_of(method.name):
            path = run.folder / "metrics.json"
            logged = read_metrics(path) if path.is_file() else {}
            for key in LOSSES.keys() & logged.keys():
                curves.setdefault(LOSSES[key], {})[run.seed] = logged[key]
        if not curves:
            section.blocks.append(Text(f"{method.title}: no training log.", "note"))
            continue
        curves = {name: curves[name] for name in LOSSES.values() if name in curves}
        ends = [f"{name} from {_mean(seeds, 0):.3g} to {_mean(seeds, -1):.3g}" for name, seeds in curves.items()]
        count = max(len(seeds) for seeds in curves.values())
        caption = f"**{method.title}**: training loss" + (f" of {count} seeds; bold: their mean." if count > 1 else ".")
        alt = f"Training curves of {method.title}: {', '.join(ends)}."
        images.append(album.chart(f"training_{method.name}", charts.training_curves(curves), alt, caption))
    section.blocks.append(Images(images, "small"))
    return section


def _mean(seeds: Mapping[int, tuple[Sequence[int], Sequence[float]]], index: int) -> float:
    return fmean(values[index] for _, values in seeds.values())
