"""The parts of the report that need more than ``results.json``: predictions, data, logs, embeddings.

What is not there is left out with a note that says why; a report is never lost for a missing picture.
"""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from minibench.report import figures
from minibench.report.album import Album
from minibench.report.bench import INSTANCE, PANOPTIC, Bench, Method, Run, Task
from minibench.report.confusion import Confusion, instance_confusion, panoptic_confusion
from minibench.report.document import Cell, Note, Paragraph, Picture, Pictures, Row, Section, Strip, Table
from minibench.report.gallery import Sample, best_median_worst, instance_samples, panoptic_samples, tiles
from minibench.report.predictions import ANALYSIS, Validation, analysis_is_fresh, inference_folder, open_validation
from minibench.report.statistics import Spread, spread
from PADing.errors import UserError
from PADing.visualization.curves import read_metrics

__all__ = ["class_section", "confusion_section", "curve_section", "embedding_section", "gallery_section"]

logger = logging.getLogger(__name__)
REPOSITORY = Path(__file__).resolve().parents[2]
ANALYSIS_LIMIT = 300  # seconds
# The losses that are drawn, by what metrics.json calls them.
LOSSES = {
    "total_loss": "sum of all losses",
    "gan_loss_total_loss": "generator",
    "id_loss_total_loss": "classifier",
}


def data_root(bench: Bench, run: Run) -> Path:
    """``$DETECTRON2_DATASETS`` of a run: every seed has its own data.

    Raises:
        UserError: the data are gone.
    """
    named = (bench.data.get("folders") or {}).get(str(run.seed))
    if named:
        return bench.folder / named
    folders = [path for path in (bench.folder / "data").glob("*") if path.is_dir()]
    mine = [path for path in folders if f"-seed{run.seed}-" in f"-{path.name}-"] or folders
    drawn = [path for path in mine if any(path.glob("*/mini.json"))]
    if (bench.folder / "data").is_dir() and any((bench.folder / "data").glob("*/mini.json")):
        drawn.append(bench.folder / "data")
    if len(drawn) != 1:
        raise UserError(f"{bench.folder / 'data'} has {len(drawn)} drawn data sets for seed {run.seed}, not one.")
    return drawn[0]


def opened(bench: Bench, method: Method) -> tuple[Run, Validation]:
    """The first run of a method whose predictions are there, and its validation set.

    Raises:
        UserError: there is none, and why.
    """
    problem = UserError(f"{method.title} was not run.")
    for run in bench.runs_of(method.name):
        try:
            validation = open_validation(run.folder, data_root(bench, run))
            if not inference_folder(run.folder, validation).is_dir():
                raise UserError(f"The predictions of {run.folder.name} are gone.")
            return run, validation
        except UserError as error:
            problem = error
    raise problem


def class_section(bench: Bench, methods: Iterable[Method], baseline: Method | None, album: Album) -> Section:
    """Bars by class: PQ of panoptic methods, AP of instance methods."""
    section, pictures = Section("Class by class", "classes"), []
    for method in methods:
        task = method.main_task
        values, unseen = class_figures(bench, method, task)
        if not values:
            section.blocks.append(Note(f"{method.title}: no figures by class."))
            continue
        reference = class_figures(bench, baseline, task)[0] if baseline else {}
        label = "PQ (%)" if task is PANOPTIC else "AP, IoU 0.50–0.95 (%)"
        chart = figures.class_bars(values, unseen, label, reference)
        found = {name: s.mean for name, s in values.items() if s.mean is not None}
        order = sorted((name for name in found if name in unseen), key=lambda name: -found[name])
        alt = f"Bars of {label} by class for {method.title}. Unseen classes: "
        alt += ", ".join(f"{name} {found[name]:.1f}" for name in order) + "."
        caption = f"**{method.title}**: {label} by class, {_over(max(s.n for s in values.values()))}."
        if reference:
            caption += f" Black ticks: {baseline.title}."
        pictures.append(album.chart(f"classes_{method.name}", chart, alt, caption))
    return _with(section, Pictures(pictures) if pictures else None)


def class_figures(bench: Bench, method: Method, task: Task) -> tuple[dict[str, Spread], set[str]]:
    """Spread by class name over the seeds, and the names of the unseen classes; empty where nobody knows."""
    by_class: dict[str, dict[int, float]] = {}
    unseen: set[str] = set()
    for run in bench.runs_of(method.name):
        if task is INSTANCE:
            own = run.results.get(INSTANCE.key, {})
            values = {key.removeprefix("AP-"): value for key, value in own.items() if key.startswith("AP-")}
            unseen |= _unseen_names(bench, run)
        else:
            values = {}
            for path in run.folder.glob("inference/**/panoptic_results.json"):
                for entry in _json(path).get("per_class", []):
                    values[entry["name"]] = entry["PQ"]
                    unseen |= {entry["name"]} if entry["unseen"] else set()
        for name, value in values.items():
            if value is not None:
                by_class.setdefault(name, {})[run.seed] = value
    return {name: spread(values) for name, values in by_class.items()}, unseen


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
        outcome = _tried(section, method, lambda m=method, c=count: _counted(bench, m, c))
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


def embedding_section(bench: Bench, method: Method | None, album: Album) -> Section:
    """The map of real and generated class embeddings, and how many generated means lie nearest to their own class."""
    section = Section("Real and generated class embeddings", "embeddings")
    if method is None:
        return _with(section, Note("PADing was not run."))
    outcome = _tried(section, method, lambda: _analysis(bench, method))
    if outcome is None:
        return section
    run, analysis = outcome
    unseen = {int(i) for i in analysis["unseen"]}
    chart, shares = figures.embedding_map(analysis, unseen)
    right, text = nearest_classes(analysis)
    alt = f"Scatter plot of the first two principal components of class embeddings of {method.title}. {text}"
    caption = (
        f"**{method.title}**, seed {run.seed}: {len(analysis['real'])} embeddings of queries matched with validation "
        f"segments and {len(analysis['generated'])} generated ones of unseen classes, in the plane of the real ones' "
        f"first two principal components ({100 * sum(shares):.0f} % of their variance)."
    )
    section.blocks.append(Pictures([album.chart(f"embeddings_{method.name}", chart, alt, caption)]))
    section.blocks.append(Paragraph(text))
    return section


def nearest_classes(analysis: Mapping[str, np.ndarray]) -> tuple[int, str]:
    """For how many unseen classes the mean generated embedding is nearest, by angle, to their own real mean.

    Returns:
        the number, and sentences that also name the classes which the others are nearest to.
    """
    names = [str(name) for name in analysis["names"]]
    present = np.unique(analysis["real_class"])
    means = np.stack([_unit(analysis["real"][analysis["real_class"] == k].mean(axis=0)) for k in present])
    own, wrong = 0, []
    unseen = [int(k) for k in analysis["unseen"] if k in present]
    for k in unseen:
        made = _unit(analysis["generated"][analysis["generated_class"] == k].mean(axis=0))
        nearest = int(present[(means @ made).argmax()])
        own += nearest == k
        if nearest != k:
            wrong.append(f"{names[k]} → {names[nearest]}")
    text = (
        f"Of {len(unseen)} unseen classes, {own} {'has' if own == 1 else 'have'} a mean generated embedding that is "
        f"nearer to its own class's real mean than to that of any other of the {len(present)} classes (cosine, in all "
        f"{analysis['real'].shape[1]} dimensions)."
    )
    return own, text + (f" The others: {', '.join(wrong)}." if wrong else "")


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _analysis(bench: Bench, method: Method) -> tuple[Run, Mapping[str, np.ndarray]]:
    run, _ = opened(bench, method)
    path, weights = run.folder / ANALYSIS, run.folder / "model_final.pth"
    if weights.is_file() and not analysis_is_fresh(run.folder):
        # In a process of its own: it registers data sets of this seed and loads a model.
        command = [sys.executable, "-m", "minibench.analysis", str(run.folder), "--data", str(data_root(bench, run))]
        logger.info("Looking at the embeddings of %s.", run.folder.name)
        try:
            done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=ANALYSIS_LIMIT)
        except subprocess.TimeoutExpired as error:
            raise UserError(f"The analysis of {run.folder.name} took more than {error.timeout:.0f} s.") from error
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"The analysis of {run.folder.name} failed: {last}")
    if not path.is_file():
        raise UserError(f"{run.folder.name} has neither weights nor an analysis of its embeddings.")
    with np.load(path) as content:
        return run, dict(content)


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
    return _with(section, Pictures(pictures, "small") if pictures else None)


def _mean(seeds: Mapping[int, tuple], index: int) -> float:
    return float(np.mean([values[index] for _, values in seeds.values()]))


def gallery_section(bench: Bench, methods: Iterable[Method], album: Album) -> Section:
    """The best, median and worst picture of each method."""
    section = Section("Gallery", "gallery")
    text = "Of the validation pictures that show an unseen class: the best, the median and the worst. Unseen classes "
    section.blocks.append(Paragraph(text + "are outlined in magenta."))
    rules = []
    for method in methods:
        is_instance = method.main_task is INSTANCE
        samples = instance_samples if is_instance else panoptic_samples
        outcome = _tried(section, method, lambda m=method, s=samples: _sampled(bench, m, s))
        if outcome is None:
            continue
        run, validation, found = outcome
        measure = "mask IoU" if is_instance else "PQ"
        for rank, sample in best_median_worst(found):
            place = f"{rank.lower()} of {len(found)}"
            title = f"**{method.title}**, {place}: {measure} {sample.quality:.0f} (seed {run.seed})"
            section.blocks.append(Strip(title, _tiles(album, method, rank, sample, validation)))
        rules.append(
            f"{method.title}, mask IoU: mean over the picture's objects of the IoU with the shown instance of the same "
            "class. Shown are detections with at least half of the picture's best score, unless better ones hide them."
            if is_instance
            else f"{method.title}, PQ: mean over the classes in the picture's truth or prediction."
        )
    section.blocks += [Note(" ".join(rules))] if rules else []
    return section


def _sampled(bench: Bench, method: Method, samples: Callable) -> tuple[Run, Validation, list[Sample]]:
    run, validation = opened(bench, method)
    return run, validation, samples(run.folder, validation)


def _tiles(album: Album, method: Method, rank: str, sample: Sample, validation: Validation) -> list[Picture]:
    found = []
    for caption, image in tiles(sample, validation):
        seg = {"Truth": sample.truth, "Prediction": sample.predicted}.get(caption)
        alt = f"{caption} of picture {sample.record['image_id']}"
        if seg is not None:
            names = [
                validation.names[label] + (" (unseen)" if label in validation.unseen else "")
                for segment, label in seg.classes.items()
                if (seg.ids == segment).any()
            ]
            alt += f": {', '.join(names) or 'nothing'}"
        name = f"{method.name}_{rank}_{caption}".lower()
        found.append(album.photo(name, image, f"{alt}.", caption))
    return found


def _tried(section: Section, method: Method, compute: Callable):
    """What ``compute`` returns; None, with a note in the section, where files are missing."""
    try:
        return compute()
    except (UserError, OSError, KeyError, ValueError) as error:
        logger.warning("%s, %s: %s", section.title, method.title, error)
        section.blocks.append(Note(f"{method.title}: not available."))
        return None


def _over(seeds: int) -> str:
    return "one seed" if seeds == 1 else f"mean ± standard deviation over {seeds} seeds"


def _unseen_names(bench: Bench, run: Run) -> set[str]:
    try:
        validation = open_validation(run.folder, data_root(bench, run))
    except UserError:
        return set()
    return {validation.names[i] for i in validation.unseen}


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}


def _with(section: Section, block) -> Section:
    if block is not None:
        section.blocks.append(block)
    return section
