"""The report of a benchmark folder, put together and written."""

import logging
from pathlib import Path

import matplotlib

from minibench.report import sections
from minibench.report.album import Album
from minibench.report.bench import Bench, read_bench
from minibench.report.document import Note, Paragraph, Section
from minibench.report.headline import about, outcome
from minibench.report.html import to_html
from minibench.report.markdown import to_markdown
from minibench.report.reading import Expectation, expectations, role
from minibench.report.statistics import summary
from minibench.report.tables import BASELINES, methods_table
from PADing.files import replacing, write_json

__all__ = ["write_report"]

logger = logging.getLogger(__name__)
TITLE = "Mini benchmark of zero-shot segmentation"
TIME_NOTE = (
    "Second stages on one pretraining share what its frozen segmenter answers: the first of a seed takes the time, the "
    "others find it done. So times compare methods of one kind only roughly."
)


def write_report(folder: Path) -> None:
    """Write ``report/{index.html, report.md, summary.json, pictures/}`` into a benchmark folder.

    Everything is read from ``<folder>/results.json`` and the run folders that it names. What is missing there is left
    out, with a note. The embeddings of the first PADing run are computed if that has not been done before.

    Args:
        folder: output folder of ``tools/minibench.py run``.

    Raises:
        UserError: ``results.json`` is missing or damaged.
    """
    bench = read_bench(Path(folder))
    out = bench.folder / "report"
    album, found = Album(out / "pictures"), expectations(bench)
    with matplotlib.rc_context({"text.parse_math": False}):  # a "$" in a name is a "$"
        parts = _sections(bench, found, album)
    title = f"{TITLE}: {bench.split} split" if bench.split else TITLE
    write_json(out / "summary.json", summary(bench) | {"expectations": _as_json(found)}, indent=2)
    for name, text in (
        ("report.md", to_markdown(title, parts)),
        ("index.html", to_html(title, parts, album.folder)),
    ):
        with replacing(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    album.clean()
    logger.info("Report: %s", out / "index.html")


def _sections(bench: Bench, found: list[Expectation], album: Album) -> list[Section]:
    baseline, pading, d2zero = (role(bench, part) for part in ("baseline", "pading", "d2zero"))
    known = {m.name for m in (pading, d2zero) if m} | set(BASELINES)
    others = [m for m in bench.methods if bench.full(m) is None and m.name not in known]
    main = [method for method in (pading, d2zero, *others) if method]
    curves = [method for method in (baseline, *main) if method and method.iterations != 0]
    return [
        Section("", "top", [Paragraph(outcome(bench, found), lead=True), *about(bench)]),
        sections.results_section(bench, album),
        sections.difference_section(bench, album),
        sections.reading_section(found),
        sections.class_section(bench, main, baseline, album),
        sections.confusion_section(bench, main, album),
        sections.embedding_section(bench, pading, album),
        sections.gallery_section(bench, main, album),
        sections.curve_section(bench, curves, album),
        Section("Methods and time", "methods", [methods_table(bench), Note(TIME_NOTE)]),
    ]


def _as_json(found: list[Expectation]) -> list[dict]:
    return [
        {
            "title": e.title,
            "figure": e.figure,
            "verdict": e.verdict,
            "comparisons": [
                {
                    "text": c.text,
                    "verdict": c.verdict,
                    "task": c.main.key,
                    "differences": {t.key: {"mean": s.mean, "sd": s.sd, "n": s.n} for t, s in c.differences.items()},
                }
                for c in e.comparisons
            ],
        }
        for e in found
    ]
