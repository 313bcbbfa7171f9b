"""Training curves from the ``metrics.json`` that every training run writes."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

# Okabe and Ito's palette: colour-blind readers can tell them apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def read_metrics(path: str | os.PathLike) -> dict[str, tuple[list[int], list[float]]]:
    """Scalar name -> (iterations, values), from a file with one JSON object a line.

    A resumed run appends to the file, so an iteration may occur twice; the later line counts. Damaged lines are
    skipped.
    """
    by_iteration: dict[int, dict] = {}
    for line in Path(path).read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if "iteration" in row:
            by_iteration.setdefault(row["iteration"], {}).update(row)
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for iteration in sorted(by_iteration):
        for name, value in by_iteration[iteration].items():
            if name != "iteration" and isinstance(value, int | float):
                xs, ys = curves.setdefault(name, ([], []))
                xs.append(iteration)
                ys.append(value)
    return curves


def plot_curves(panels: Mapping[str, tuple[str | os.PathLike, Sequence[str]]], out: str | os.PathLike) -> None:
    """Write a figure with one panel for each run to the file ``out``; its folder must exist.

    ``panels`` is title -> (path of a ``metrics.json``, names of the scalars to draw). Absent scalars are left out.
    """
    # Unlike pyplot, this needs no display and has no global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0 * len(panels), 3.4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, (path, names)) in zip(axes, panels.items(), strict=True):
        curves = read_metrics(path)
        for name in names:
            if name in curves:
                axis.plot(*curves[name], label=name, linewidth=1.4, color=COLOURS[len(axis.lines) % len(COLOURS)])
        axis.set(title=title, xlabel="iteration", ylabel="loss")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8)
    figure.savefig(os.fspath(out), dpi=110)
