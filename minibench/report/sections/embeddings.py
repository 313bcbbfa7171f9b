"""The map of real and generated class embeddings."""

import logging
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from minibench.report import figures
from minibench.report.album import Album
from minibench.report.bench import Bench, Method, Run
from minibench.report.document import Note, Paragraph, Pictures, Section
from minibench.report.predictions import ANALYSIS, analysis_is_fresh
from minibench.report.sections.files import attempt, data_root, opened
from PADing.errors import UserError

__all__ = ["embedding_section", "nearest_classes", "widths"]

logger = logging.getLogger(__name__)
REPOSITORY = Path(__file__).resolve().parents[3]
ANALYSIS_LIMIT = 1800  # seconds; 30 on idle cores, many times that on busy ones


def embedding_section(bench: Bench, method: Method | None, album: Album) -> Section:
    """The map of real and generated class embeddings, and how many generated means lie nearest to their own class."""
    section = Section("Real and generated class embeddings", "embeddings")
    if method is None:
        section.blocks.append(Note("PADing was not run."))
        return section
    outcome = attempt(section, method, lambda: _analysis(bench, method))
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
    section.blocks.append(Paragraph(f"{text} {widths(analysis)}"))
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


def widths(analysis: Mapping[str, np.ndarray]) -> str:
    """A sentence: how far embeddings lie from the mean of their class, generated ones beside real ones.

    Root mean square over the unseen classes' embeddings.
    """
    found = {}
    for kind in ("real", "generated"):
        points, labels = analysis[kind], analysis[f"{kind}_class"]
        members = [points[labels == k] for k in analysis["unseen"] if (labels == k).any()]
        squares = [((m - m.mean(axis=0)) ** 2).sum(axis=1) for m in members]
        found[kind] = float(np.sqrt(np.concatenate(squares).mean())) if squares else 0.0
    ratio = found["generated"] / max(found["real"], 1e-12)
    return (
        f"Around the mean of their class, generated embeddings spread {ratio:.1f} times as far as real ones "
        f"({found['generated']:.1f} and {found['real']:.1f})."
    )


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
