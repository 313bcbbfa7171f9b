"""The section with the map of query features and generated features."""

import logging
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from minibench.bench import Bench
from minibench.methods import Method
from minibench.report import charts
from minibench.report.charts import Album
from minibench.report.document import Images, Section, Text, say
from minibench.report.predictions import attempt, data_root, first_run
from minibench.runs import Run
from PADing.errors import UserError
from PADing.files import REPOSITORY

logger = logging.getLogger(__name__)
# In a run's folder: what ``minibench.analysis`` writes.
ANALYSIS = "analysis.npz"
LIMIT = 1800  # seconds; 30 are enough on idle cores


def embedding_section(bench: Bench, album: Album) -> Section:
    """The map of query features and generated features, and how many generated means are nearest to their own class."""
    section = Section("Query features and generated features", "embeddings")
    methods = [m for m in bench.methods if m.maps_features]
    if not methods:
        titles = " and ".join(m.title for m in bench.declared.values() if m.maps_features)
        section.blocks.append(Text(f"{titles} was not run.", "note"))
    for method in methods:
        found = attempt(section, method, lambda method: _analysis(bench, method))
        if found is None:
            continue
        run, analysis = found
        chart, shares = charts.embedding_map(analysis, {int(i) for i in analysis["unseen"]})
        _, text = nearest_classes(analysis)
        alt = f"Scatter plot of query features and generated features of {method.title} in two principal components."
        counts = {"real": len(analysis["real"]), "generated": len(analysis["generated"])}
        caption = say("embeddings", title=method.title, seed=run.seed, percent=100 * sum(shares), **counts)
        section.blocks.append(Images([album.chart(f"embeddings_{method.name}", chart, alt, caption)]))
        section.blocks.append(Text(f"{text} {widths(analysis)}"))
    return section


def nearest_classes(analysis: Mapping[str, np.ndarray]) -> tuple[int, str]:
    """Number of unseen classes whose mean generated feature is nearest, by angle, to their own; and a text about it."""
    names = [str(name) for name in analysis["names"]]
    present = np.unique(analysis["real_class"])
    means = np.stack([_direction(analysis["real"][analysis["real_class"] == k]) for k in present])
    unseen = [int(k) for k in analysis["unseen"] if k in present]
    made = {k: _direction(analysis["generated"][analysis["generated_class"] == k]) for k in unseen}
    nearest = {k: int(present[(means @ vector).argmax()]) for k, vector in made.items()}
    own = sum(k == other for k, other in nearest.items())
    wrong = [f"{names[k]} → {names[other]}" for k, other in nearest.items() if k != other]
    dimensions = analysis["real"].shape[1]
    counts = {"unseen": len(unseen), "own": own, "classes": len(present), "dimensions": dimensions}
    return own, say("nearest", wrong=wrong, **counts)


def widths(analysis: Mapping[str, np.ndarray]) -> str:
    """A sentence: root mean square distance of the features of unseen classes from the mean of their class."""
    found = {}
    for kind in ("real", "generated"):
        points, labels = analysis[kind], analysis[f"{kind}_class"]
        members = [points[labels == k] for k in analysis["unseen"] if (labels == k).any()]
        squares = [((m - m.mean(axis=0)) ** 2).sum(axis=1) for m in members]
        found[kind] = float(np.sqrt(np.concatenate(squares).mean())) if squares else 0.0
    return say("widths", **found)


def _direction(features: np.ndarray) -> np.ndarray:
    """Unit vector of the mean of (N, d) features."""
    mean = features.mean(axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


def analysis_is_fresh(run_folder: Path) -> bool:
    """Whether the analysis of a run's features is newer than its weights."""
    done, weights = run_folder / ANALYSIS, run_folder / "model_final.pth"
    return done.is_file() and (not weights.is_file() or done.stat().st_mtime >= weights.stat().st_mtime)


def _analysis(bench: Bench, method: Method) -> tuple[Run, Mapping[str, np.ndarray]]:
    run, _ = first_run(bench, method)
    if run.weights.is_file() and not analysis_is_fresh(run.folder):
        # In a separate process: it registers data sets of this seed and loads a model.
        command = [sys.executable, "-m", "minibench.analysis", str(run.folder), "--data", str(data_root(bench, run))]
        logger.info("Analysing the features of %s.", run.folder.name)
        try:
            done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=LIMIT)
        except subprocess.TimeoutExpired as error:
            raise UserError(f"The analysis of {run.folder.name} took more than {error.timeout:.0f} s.") from error
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"The analysis of {run.folder.name} failed: {last}")
    if not (run.folder / ANALYSIS).is_file():
        raise UserError(f"{run.folder.name} has neither weights nor an analysis of its features.")
    with np.load(run.folder / ANALYSIS) as content:
        return run, dict(content)
