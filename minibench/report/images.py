"""The sections that show predictions: names given to unseen segments, and the best, median and worst image."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from minibench.methods import INSTANCE, Method
from minibench.report import charts
from minibench.report.charts import Album
from minibench.report.document import Cell, Images, Row, Section, Table, Text, heading, say
from minibench.report.predictions import Outcome, Validation, attempt
from minibench.runs import Run
from PADing.visualization import paint, read_rgb
from PADing.visualization.panoptic import display_scale

# A method -> what its first run predicted.
Outcomes = Callable[[Method], tuple[Run, Validation, list[Outcome]]]


@dataclass(frozen=True)
class Confusion:
    """``counts[i, j]``: segments of the unseen class ``rows[i]`` that were called class j; the last column: missed."""

    rows: tuple[int, ...]
    names: tuple[str, ...]
    unseen: frozenset[int]
    counts: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """Rows as fractions; zero where a class has no segment."""
        return self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)


def confusion_of(outcomes: Iterable[Outcome], validation: Validation) -> Confusion:
    """Count what the unseen segments of all images were called."""
    rows = tuple(sorted(validation.unseen))
    counts = np.zeros((len(rows), len(validation.names) + 1), dtype=np.int64)
    for label, name in (pair for outcome in outcomes for pair in outcome.called):
        counts[rows.index(label), -1 if name is None else name] += 1
    return Confusion(rows, tuple(validation.names), validation.unseen, counts)


def confusion_section(methods: Iterable[Method], outcomes: Outcomes, album: Album) -> Section:
    """What unseen segments are called, as a chart and as a short table."""
    section = Section("What unseen segments are called", "confusion", [Text(say("confusion"))])
    images, rows = [], []
    for method in methods:
        found = attempt(section, method, outcomes)
        if found is None:
            continue
        run, validation, predicted = found
        confusion = confusion_of(predicted, validation)
        parts = _shares(confusion)
        alt = f"Confusion matrix of {method.title} for segments of unseen classes, as in the table below."
        caption = f"**{method.title}**, seed {run.seed}: {confusion.counts.sum()} segments of unseen classes "
        caption += "(in brackets: by class)."
        images.append(album.chart(f"confusion_{method.name}", charts.confusion_matrix(confusion), alt, caption))
        rows.append(heading(f"{method.title} (seed {run.seed})"))
        rows += [Row(list(map(Cell, cells))) for cells in parts]
    columns = ["True class", "Right", "Another unseen", "A seen class", "Missed", "Most often called"]
    if rows:
        section.blocks += [Images(images, "wide"), Table("The same in short", columns, rows, text=(5,))]
    return section


def _shares(confusion: Confusion) -> list[list[str]]:
    """The rows of the short table."""
    rows, unseen = [], list(confusion.rows)
    for label, shares in zip(confusion.rows, confusion.shares, strict=True):
        name = confusion.names[label]
        if not shares.any():
            rows.append([name, *["–"] * 4, "does not occur"])
            continue
        right, missed, other = shares[label], shares[-1], shares[unseen].sum() - shares[label]
        top = int(shares.argmax())
        most = "missed" if top == len(confusion.names) else confusion.names[top]
        values = [right, other, 1 - right - other - missed, missed]
        rows.append([name, *(f"{100 * abs(v):.0f} %" for v in values), f"{most} ({100 * shares[top]:.0f} %)"])
    return rows


def gallery_section(methods: Iterable[Method], outcomes: Outcomes, album: Album) -> Section:
    """The best, median and worst image of each method."""
    section, rules = Section("Gallery", "gallery", [Text(say("gallery"))]), []
    for method in methods:
        found = attempt(section, method, outcomes)
        if found is None:
            continue
        run, validation, predicted = found
        kind, measure = ("instance", "mask IoU") if method.main_task is INSTANCE else ("panoptic", "PQ")
        for rank, outcome in best_median_worst(predicted):
            place = f"{rank.lower()} of {len(predicted)}"
            title = f"**{method.title}**, {place}: {measure} {outcome.quality:.0f} (seed {run.seed})"
            drawn = ((f"{method.name}_{rank}_{tile[-1]}".lower(), *tile) for tile in _tiles(outcome, validation))
            section.blocks.append(Images([album.photo(*tile) for tile in drawn], "strip", title))
        rules.append(say(f"{kind}_quality", title=method.title))
    section.blocks += [Text(" ".join(rules), "note")] if rules else []
    return section


def best_median_worst(outcomes: Iterable[Outcome]) -> list[tuple[str, Outcome]]:
    """The three, each image once; images of equal quality are in the order of their ids."""
    ranked = sorted(outcomes, key=lambda o: (-o.quality, o.record["image_id"]))
    places = {len(ranked) - 1: "Worst", len(ranked) // 2: "Median", 0: "Best"} if ranked else {}
    return [(places[place], ranked[place]) for place in sorted(places)]


def _tiles(outcome: Outcome, validation: Validation) -> Iterator[tuple[np.ndarray, str, str]]:
    """((H, W, 3) uint8 RGB, description, caption) of input, truth and prediction, enlarged for readable names."""
    image = read_rgb(outcome.record["file_name"])
    scale = display_scale(*image.shape[:2])
    of_image = f"of image {outcome.record['image_id']}"
    large = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    yield large, f"Input {of_image}.", "Input"
    for caption, segmentation in (("Truth", outcome.truth), ("Prediction", outcome.predicted)):
        names = [
            validation.names[label] + (" (unseen)" if label in validation.unseen else "")
            for segment, label in segmentation.classes.items()
            if (segmentation.ids == segment).any()
        ]
        painted = paint(image, segmentation, validation.names, sorted(validation.unseen), scale)
        yield painted, f"{caption} {of_image}: {', '.join(names) or 'nothing'}.", caption
