"""The sections made from files of the runs: bars by class, and training curves."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from minibench.bench import Bench, Spread, spread
from minibench.by_class import numbers_by_class, read_classes
from minibench.methods import INSTANCE, PANOPTIC, SEMANTIC, Method, Task
from minibench.report import charts
from minibench.report.charts import Album
from minibench.report.document import Images, Section, Text, say
from PADing.data.mini import UNSEEN
from PADing.visualization.curves import read_metrics

# The losses that are drawn, by what metrics.json calls them.
LOSSES = {"total_loss": "sum of all losses", "gan_loss_total_loss": "generator", "id_loss_total_loss": "classifier"}
# Task -> where its results have another metric by class, and that metric's name.
_IN_RESULTS = {PANOPTIC: (SEMANTIC, "IoU"), SEMANTIC: (SEMANTIC, "IoU"), INSTANCE: (INSTANCE, "AP")}


def class_section(bench: Bench, methods: Iterable[Method], album: Album) -> Section:
    """Bars by class: PQ of panoptic methods, AP50 of instance methods; IoU and AP where more seeds have these."""
    section, images = Section("Class by class", "classes"), []
    references = bench.with_role("pretraining")
    unseen = set(UNSEEN.get(bench.split, ()))
    for method in methods:
        metric, values = max(by_class(bench, method).items(), key=lambda pair: _seeds(pair[1]))
        if not values:
            section.blocks.append(Text(f"{method.title}: no metrics by class.", "note"))
            continue
        reference = by_class(bench, references[0], method.main_task)[metric] if references else {}
        label = f"{metric} (%)"
        found = [(name, s.mean) for name, s in values.items() if s.mean is not None and name in unseen]
        found.sort(key=lambda pair: -pair[1])
        alt = f"Bars of {label} for each seen and unseen class, of {method.title}."
        seeds = _seeds(values)
        over = "one seed" if seeds == 1 else f"mean ± standard deviation over {seeds} seeds"
        caption = f"**{method.title}**: {label} by class, {over}."
        caption += f" Black ticks: {references[0].title}." if reference else ""
        caption += " " + say("classes", found=found)
        chart = charts.class_bars(values, unseen, label, reference)
        images.append(album.chart(f"classes_{method.name}", chart, alt, caption))
    section.blocks.append(Images(images))
    return section


def by_class(bench: Bench, method: Method, task: Task | None = None) -> dict[str, dict[str, Spread]]:
    """Metric -> class name -> its spread over the seeds, best metric first; ``task``: default the method's main one.

    The second metric is in every ``results.json``; the first, of which the tables show means, is not in older ones.
    """
    task = task or method.main_task
    second, name = _IN_RESULTS[task]
    values: dict[str, dict[str, dict[int, float]]] = {task.metric: {}, name: {}}
    for run in bench.runs_of(method.name):
        classes = run.classes or numbers_by_class(read_classes(run.folder))
        found: list[tuple[str, str, float | None]] = []
        found += [(task.metric, key, number) for key, number in classes.get(task.key, {}).items()]
        metrics = run.results.get(second.key, {})
        found += [(name, key.removeprefix(f"{name}-"), v) for key, v in metrics.items() if key.startswith(f"{name}-")]
        for metric, key, number in found:
            if number is not None:
                values[metric].setdefault(key, {})[run.seed] = number
    return {metric: {key: spread(v) for key, v in classes.items()} for metric, classes in values.items()}


def _seeds(classes: Mapping[str, Spread]) -> int:
    return max((s.n for s in classes.values()), default=0)


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
