"""Training curves."""

from collections.abc import Iterable, Mapping

import numpy as np

from minibench.report import figures
from minibench.report.album import Album
from minibench.report.bench import Bench, Method
from minibench.report.document import Note, Pictures, Section
from PADing.visualization.curves import read_metrics

__all__ = ["curve_section"]

# The losses that are drawn, by what metrics.json calls them.
LOSSES = {
    "total_loss": "sum of all losses",
    "gan_loss_total_loss": "generator",
    "id_loss_total_loss": "classifier",
}


def curve_section(bench: Bench, methods: Iterable[Method], album: Album) -> Section:
    """Losses over the iterations, seeds as thin lines and their mean bold."""
    section, pictures = Section("Training", "training"), []
    for method in methods:
        curves: dict[str, dict] = {}
        for run in bench.runs_of(method.name):
            path = run.folder / "metrics.json"
            logged = read_metrics(path) if path.is_file() else {}
            for key, name in LOSSES.items():
                if key in logged:
                    curves.setdefault(name, {})[run.seed] = logged[key]
        if not curves:
            section.blocks.append(Note(f"{method.title}: no training log."))
            continue
        ends = [f"{name} from {_mean(seeds, 0):.3g} to {_mean(seeds, -1):.3g}" for name, seeds in curves.items()]
        count = max(len(seeds) for seeds in curves.values())
        caption = f"**{method.title}**: training loss" + (f" of {count} seeds; bold: their mean." if count > 1 else ".")
        alt = f"Training curves of {method.title}: {'; '.join(ends)}."
        chart = figures.training_curves(curves)
        pictures.append(album.chart(f"training_{method.name}", chart, alt, caption))
    section.blocks += [Pictures(pictures, "small")] if pictures else []
    return section


def _mean(seeds: Mapping[int, tuple], index: int) -> float:
    return float(np.mean([values[index] for _, values in seeds.values()]))
