"""What unseen segments are called."""

from collections.abc import Callable, Iterable

from minibench.report import figures
from minibench.report.album import Album
from minibench.report.bench import INSTANCE, Bench, Method, Run
from minibench.report.confusion import Confusion, instance_confusion, panoptic_confusion
from minibench.report.document import Cell, Paragraph, Pictures, Row, Section, Table
from minibench.report.sections.files import attempt, opened

__all__ = ["confusion_section"]


def confusion_section(bench: Bench, methods: Iterable[Method], album: Album) -> Section:
    """What unseen segments are called, as a picture and as a short table."""
    section = Section("What unseen segments are called", "confusion")
    section.blocks.append(
        Paragraph(
            "Each ground-truth segment of an unseen class is looked up in the prediction: a predicted segment of any "
            "class with IoU > 0.5 says what it was called (among detections, the best-scoring one); otherwise it was "
            "missed. Rows add up to 100 %; outlined: the right name. AP is kinder to detections: it ranks the answers "
            "of each class by themselves, so an object that is also found under its own name, with a lower score, "
            "still counts."
        )
    )
    pictures, rows = [], []
    for method in methods:
        count = instance_confusion if method.main_task is INSTANCE else panoptic_confusion
        outcome = attempt(section, method, lambda m=method, c=count: _counted(bench, m, c))
        if outcome is None:
            continue
        run, confusion = outcome
        chart = figures.confusion_matrix(confusion)
        parts = _shares(confusion)
        alt = f"Confusion matrix of {method.title}, in percent of the true segments. "
        alt += " ".join(f"{name}: {cells[0]} right, most often {cells[-1]}." for name, cells in parts)
        total = int(confusion.counts.sum())
        caption = f"**{method.title}**, seed {run.seed}: {total} segments of unseen classes (in brackets: by class)."
        pictures.append(album.chart(f"confusion_{method.name}", chart, alt, caption))
        rows.append(Row([Cell(f"{method.title} (seed {run.seed})")], "group"))
        rows += [Row([Cell(name), *map(Cell, cells)]) for name, cells in parts]
    section.blocks += [Pictures(pictures, "wide")] if pictures else []
    if rows:
        columns = ["True class", "Right", "Another unseen", "A seen class", "Missed", "Most often called"]
        section.blocks.append(Table("The same in short", columns, rows, text=(5,)))
    return section


def _counted(bench: Bench, method: Method, count: Callable) -> tuple[Run, Confusion]:
    run, validation = opened(bench, method)
    return run, count(run.folder, validation)


def _shares(confusion: Confusion) -> list[tuple[str, list[str]]]:
    rows, unseen = [], list(confusion.rows)
    for label, shares, count in zip(confusion.rows, confusion.shares, confusion.counts, strict=True):
        name = confusion.names[label]
        if not count.sum():
            rows.append((name, ["–"] * 4 + ["does not occur"]))
            continue
        right, missed = shares[label], shares[-1]
        other = shares[unseen].sum() - right
        values = [right, other, 1 - right - other - missed, missed]
        top = int(shares.argmax())
        called = "missed" if top == len(confusion.names) else confusion.names[top]
        rows.append((name, [f"{100 * abs(v):.0f} %" for v in values] + [f"{called} ({100 * shares[top]:.0f} %)"]))
    return rows
