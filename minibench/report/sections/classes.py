"""Bars by class."""

import json
from collections.abc import Iterable
from pathlib import Path

from minibench.report import figures
from minibench.report.album import Album
from minibench.report.bench import INSTANCE, Bench, Method, Run, Task
from minibench.report.document import Note, Pictures, Section
from minibench.report.statistics import Spread, spread

__all__ = ["class_figures", "class_section"]


def class_section(bench: Bench, methods: Iterable[Method], baseline: Method | None, album: Album) -> Section:
    """Bars by class: PQ of panoptic methods, AP50 of instance methods."""
    section, pictures = Section("Class by class", "classes"), []
    for method in methods:
        task = method.main_task
        values, unseen = class_figures(bench, method, task)
        if not values:
            section.blocks.append(Note(f"{method.title}: no figures by class."))
            continue
        reference = class_figures(bench, baseline, task)[0] if baseline else {}
        label = f"{task.metric} (%)"
        chart = figures.class_bars(values, unseen, label, reference)
        found = {name: s.mean for name, s in values.items() if s.mean is not None}
        order = sorted((name for name in found if name in unseen), key=lambda name: -found[name])
        alt = f"Bars of {label} by class for {method.title}. Unseen classes: "
        alt += ", ".join(f"{name} {found[name]:.1f}" for name in order) + "."
        caption = f"**{method.title}**: {label} by class, {_over(max(s.n for s in values.values()))}."
        if reference:
            caption += f" Black ticks: {baseline.title}."
        pictures.append(album.chart(f"classes_{method.name}", chart, alt, caption))
    section.blocks += [Pictures(pictures)] if pictures else []
    return section


def class_figures(bench: Bench, method: Method, task: Task) -> tuple[dict[str, Spread], set[str]]:
    """Spread by class name over the seeds, and the names of the unseen classes; empty where nobody knows."""
    by_class: dict[str, dict[int, float]] = {}
    unseen: set[str] = set()
    for run in bench.runs_of(method.name):
        values = {}
        for entry in _per_class(run, task):
            values[entry["name"]] = entry[task.metric]
            unseen |= {entry["name"]} if entry["unseen"] else set()
        for name, value in values.items():
            if value is not None:
                by_class.setdefault(name, {})[run.seed] = value
    return {name: spread(values) for name, values in by_class.items()}, unseen


def _over(seeds: int) -> str:
    return "one seed" if seeds == 1 else f"mean ± standard deviation over {seeds} seeds"


def _per_class(run: Run, task: Task) -> list[dict]:
    """What the task's evaluator has written of every class; empty where it has not."""
    name = "instance_results.json" if task is INSTANCE else "panoptic_results.json"
    for path in run.folder.glob(f"inference/**/{name}"):
        found = _json(path).get("per_class") or {}
        return found.get(task.key, []) if task is INSTANCE else list(found)
    return []


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
