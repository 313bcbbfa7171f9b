"""The charts, in one style: readable on a phone, with colours that colour-blind people can tell apart.

Every function returns a matplotlib figure and leaves pyplot's global state alone, so no display is needed. ``Album``
writes the charts to a folder.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from minibench.bench import Spread
from minibench.methods import Task
from minibench.report.document import Image
from PADing.files import replacing

if TYPE_CHECKING:
    from minibench.report.images import Confusion

# Okabe and Ito's palette.
SEEN, UNSEEN, HARMONIC = "#0072B2", "#D55E00", "#1c1e21"
CLASS_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7a6a00")
GREY, LIGHT = "#767c84", "#d5d9de"
WIDTH = 4.7  # inches; text is 8-9 pt, so about 10 px on a phone
# What matplotlib draws and saves them with.
STYLE = Path(__file__).with_name("charts.mplstyle")
# A chart has few colours, so a palette loses nothing that can be seen and takes half of the space.
PALETTE = 256
QUALITY = 82  # of JPEG


class Album:
    """Writes images into ``folder`` and knows which ones belong to this report."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.names: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def chart(self, name: str, figure: Figure, alt: str, caption: str) -> Image:
        """Write a chart as PNG."""
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png")
        # An octree keeps rare colours, such as thin lines', which the median cut would merge with their neighbours.
        method, dither = PIL.Image.Quantize.FASTOCTREE, PIL.Image.Dither.NONE
        image = PIL.Image.open(drawn).convert("RGB").quantize(PALETTE, method, dither=dither)
        return self._save(f"{name}.png", image, alt, caption)

    def photo(self, name: str, pixels: np.ndarray, alt: str, caption: str) -> Image:
        """Write (H, W, 3) uint8 RGB as JPEG."""
        return self._save(f"{name}.jpg", PIL.Image.fromarray(pixels), alt, caption, quality=QUALITY)

    def clean(self) -> None:
        """Remove images of an earlier report."""
        for path in self.folder.iterdir():
            if path.suffix in (".png", ".jpg") and path.name not in self.names:
                path.unlink()

    def _save(self, file: str, image: PIL.Image.Image, alt: str, caption: str, **options: Any) -> Image:
        with replacing(self.folder / file) as temporary:
            image.save(temporary, optimize=True, **options)
        self.names.add(file)
        return Image(file, alt, caption)


def _figure(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def _rows(axes: Axes, labels: Sequence[str], xlabel: str) -> None:
    """One line for each label, from top to bottom."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlabel(xlabel)
    axes.grid(axis="x")


def _markers(kinds: Iterable[tuple[str, str, str]], size: float) -> list[Line2D]:
    """For a legend: (marker, colour, label)."""
    return [Line2D([], [], color=c, marker=m, markersize=size, linestyle="", label=n) for m, c, n in kinds]


def overview(rows: Sequence[tuple[str, Sequence[Spread]]], task: Task) -> Figure:
    """(title, (seen, unseen, harmonic mean)) of every method: means; bars: ± one standard deviation."""
    figure, axes = _figure(0.9 + 0.36 * len(rows))
    kinds = [("o", SEEN, "seen"), ("s", UNSEEN, "unseen"), ("D", HARMONIC, "harmonic mean")]
    for y, (_, spreads) in enumerate(rows):
        means = [s.mean for s in spreads if s.mean is not None]
        if means:
            axes.plot([min(means), max(means)], [y, y], color=LIGHT, linewidth=3, zorder=1, solid_capstyle="round")
        # A little below each other: deviations that overlap can still be told apart.
        for s, (marker, colour, _), shift in zip(spreads, kinds, (-0.18, 0, 0.18), strict=True):
            if s.mean is not None:
                axes.errorbar(
                    s.mean, y + shift, xerr=s.sd or None, color=colour, marker=marker, markersize=4, capsize=2
                )
    _rows(axes, [_wrap(title) for title, _ in rows], f"{task.metric} (%)")
    axes.set_xlim(-1, min(101, axes.get_xlim()[1]))
    figure.legend(handles=_markers(kinds, 5), loc="outside upper center", ncols=3, handletextpad=0.2)
    return figure


def difference_plot(rows: Sequence[tuple[str, Spread, float | None, bool]], margin: float, label: str) -> Figure:
    """(title, paired differences, half of the interval, whether it is decided): dots for seeds, a bar for the mean.

    Lines are the intervals. Undecided bars are grey. The strip shows differences below the margin of equivalence.
    """
    figure, axes = _figure(0.75 + 0.42 * len(rows))
    axes.axvspan(-margin, margin, color=LIGHT, alpha=0.45, linewidth=0, zorder=0)
    axes.axvline(0, color=HARMONIC, linewidth=1)
    for y, (_, difference, half, decided) in enumerate(rows):
        if difference.mean is None:
            continue
        colour = GREY if not decided else UNSEEN if difference.mean < 0 else SEEN
        axes.barh(y, difference.mean, height=0.55, color=colour, alpha=0.3, zorder=1)
        if half:
            axes.errorbar(difference.mean, y, xerr=half, color=HARMONIC, capsize=3, linewidth=1, zorder=2)
        offsets = np.linspace(-0.14, 0.14, difference.n) if difference.n > 1 else np.zeros(1)
        axes.scatter(list(difference.values.values()), y + offsets, s=16, color=colour, zorder=3)
    _rows(axes, [_wrap(title) for title, *_ in rows], label)
    return figure


def class_bars(values: Mapping[str, Spread], unseen: set[str], label: str, reference: Mapping[str, Spread]) -> Figure:
    """One bar for each class, seen ones first; lines: ± one standard deviation; the reference is drawn as a tick."""
    names = sorted(values, key=lambda name: name in unseen)
    figure, axes = _figure(0.95 + 0.205 * len(names))
    for y, name in enumerate(names):
        s, other = values[name], reference.get(name)
        if s.mean is not None:
            bar = axes.barh(y, s.mean, height=0.72, linewidth=0, color=UNSEEN if name in unseen else SEEN)
            if name in unseen:  # hatching tells the two apart without any colour
                bar[0].set(hatch="////", edgecolor="white")
            if s.sd:
                axes.errorbar(s.mean, y, xerr=s.sd, color=HARMONIC, capsize=1.5, linewidth=0.9)
        if other is not None and other.mean is not None:
            axes.plot([other.mean] * 2, [y - 0.4, y + 0.4], color=HARMONIC, linewidth=1.6)
    _rows(axes, names, label)
    axes.set_xlim(0, min(101, axes.get_xlim()[1]))  # a percentage; a deviation may reach beyond
    for tick, name in zip(axes.get_yticklabels(), names, strict=True):
        tick.set_color(UNSEEN if name in unseen else HARMONIC)
    bars = [Patch(color=SEEN, label="seen"), Patch(facecolor=UNSEEN, hatch="////", edgecolor="white", label="unseen")]
    ticks = [Line2D([], [], color=HARMONIC, linewidth=1.6, label="baseline")] if reference else []
    figure.legend(handles=[*bars, *ticks], loc="outside upper center", ncols=3)
    return figure


def confusion_matrix(confusion: "Confusion", least: float = 0.05) -> Figure:
    """What segments of unseen classes are called, in percent of each row.

    Columns: unseen classes, then the seen classes that take at least ``least`` of a row, all other ones, missed.
    """
    shares, unseen = confusion.shares, list(confusion.rows)
    seen = [i for i in range(len(confusion.names)) if i not in confusion.unseen]
    named = [i for i in seen if shares[:, i].max(initial=0) >= least]
    rest = [i for i in seen if i not in named]
    columns = [*unseen, *named]
    table = np.column_stack([shares[:, columns], shares[:, rest].sum(axis=1), shares[:, -1]])
    labels = [*(confusion.names[i] for i in columns), "other seen", "missed"]
    figure, axes = _figure(1.75 + 0.3 * len(unseen), width=max(WIDTH, 1.7 + 0.34 * len(labels)))
    axes.imshow(table, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(table):
        if value >= 0.005:
            colour = "white" if value > 0.55 else HARMONIC
            axes.text(j, i, f"{100 * value:.0f}", ha="center", va="center", fontsize=8, color=colour)
    for i in range(len(unseen)):  # what is right
        axes.add_patch(Rectangle((i - 0.5, i - 0.5), 1, 1, fill=False, color=UNSEEN, linewidth=1.6))
    axes.axvline(len(unseen) - 0.5, color=GREY, linewidth=1)
    axes.axvline(len(labels) - 2.5, color=GREY, linewidth=1, linestyle=":")
    rows = [f"{confusion.names[i]} ({n})" for i, n in zip(unseen, confusion.counts.sum(axis=1), strict=True)]
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(labels)), labels, rotation=55, ha="left", rotation_mode="anchor")
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def embedding_map(analysis: Mapping[str, np.ndarray], unseen: set[int]) -> tuple[Figure, tuple[float, float]]:
    """The two first principal components of query features, with the generated features laid into the same plane.

    With the share of the query features' variance that each component holds. ``analysis``: see ``minibench.analysis``.
    """
    real, generated = analysis["real"], analysis["generated"]
    centre = real.mean(axis=0)
    _, sizes, axes_of_space = np.linalg.svd(real - centre, full_matrices=False)
    shares = sizes**2 / max(float((sizes**2).sum()), 1e-12)
    flat, made = (points @ axes_of_space[:2].T for points in (real - centre, generated - centre))
    figure, axes = _figure(5.0)
    classes = sorted(unseen)
    seen = flat[~np.isin(analysis["real_class"], classes)]
    axes.scatter(seen[:, 0], seen[:, 1], s=5, color=LIGHT, linewidths=0, label="seen, real")
    for colour, label in zip(CLASS_COLOURS, classes, strict=False):
        mine, copies = flat[analysis["real_class"] == label], made[analysis["generated_class"] == label]
        axes.scatter(mine[:, 0], mine[:, 1], s=9, color=colour, alpha=0.55, linewidths=0)
        axes.scatter(copies[:, 0], copies[:, 1], s=12, color=colour, marker="x", linewidths=0.7, alpha=0.55)
        for points, marker in ((mine, "o"), (copies, "X")):
            if len(points):
                x, y = points.mean(axis=0)
                axes.scatter(x, y, s=70, color=colour, marker=marker, edgecolors="white", zorder=4)
    patches = [Patch(color=c, label=str(analysis["names"][k])) for c, k in zip(CLASS_COLOURS, classes, strict=False)]
    kinds = [("o", HARMONIC, "real (large: mean)"), ("X", HARMONIC, "generated"), ("o", LIGHT, "seen, real")]
    figure.legend(handles=[*patches, *_markers(kinds, 6)], loc="outside lower center", ncols=3, fontsize=7.5)
    x, y = f"component 1 ({100 * shares[0]:.0f} % of the variance)", f"component 2 ({100 * shares[1]:.0f} %)"
    axes.set(xlabel=x, ylabel=y, xticks=[], yticks=[])
    return figure, (float(shares[0]), float(shares[1]))


def training_curves(curves: Mapping[str, Mapping[int, tuple[Sequence[int], Sequence[float]]]]) -> Figure:
    """Loss -> seed -> (iterations, values); seeds as thin lines, their mean over what all share as a bold one."""
    figure, axes = _figure(2.9)
    for (name, seeds), colour in zip(curves.items(), (SEEN, UNSEEN, "#009E73"), strict=False):
        for steps, values in seeds.values():
            axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.45)
        common = sorted(set.intersection(*(set(steps) for steps, _ in seeds.values())))
        mean = [np.mean([dict(zip(*curve, strict=True))[step] for curve in seeds.values()]) for step in common]
        axes.plot(common, mean, color=colour, linewidth=2.2, label=name)
    every = [v for seeds in curves.values() for _, values in seeds.values() for v in values]
    logarithmic = bool(every) and min(every) > 0 and max(every) > 8 * min(every)
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="iteration", ylabel="loss (logarithmic axis)" if logarithmic else "loss")
    axes.grid()
    axes.legend()
    return figure


def _wrap(title: str, width: int = 22) -> str:
    """A title on at most two lines, broken at the space nearest to its middle."""
    if len(title) <= width or " " not in title:
        return title
    middle = min((i for i, letter in enumerate(title) if letter == " "), key=lambda i: abs(i - len(title) / 2))
    return f"{title[:middle]}\n{title[middle + 1 :]}"
