"""Combines and writes the report of a benchmark folder."""

import functools
import logging
from pathlib import Path

import matplotlib

from minibench.bench import Bench, Spread, read_bench
from minibench.methods import TASKS
from minibench.report import charts
from minibench.report.charts import Album
from minibench.report.curves import class_section, curve_section
from minibench.report.document import Section
from minibench.report.embeddings import embedding_section
from minibench.report.images import confusion_section, gallery_section
from minibench.report.pages import to_html, to_markdown
from minibench.report.predictions import first_outcomes
from minibench.report.reading import Expectation, as_json, expectations, headline_section, reading_section
from minibench.report.results import difference_section, methods_section, results_section
from PADing.files import replacing, write_json

logger = logging.getLogger(__name__)
TITLE = "Mini benchmark of zero-shot segmentation"


def write_report(folder: Path) -> None:
    """Write ``report/{index.html, report.md, summary.json, pictures/}`` into a benchmark folder.

    It reads ``<folder>/results.json`` and the run folders that it names. Sections without data have a note. UserError:
    ``results.json`` is missing. The features of the first PADing run are computed if they are missing.
    """
    bench = read_bench(folder)
    out = bench.folder / "report"
    album, found = Album(out / "pictures"), expectations(bench)
    with matplotlib.rc_context(fname=charts.STYLE):
        sections = _sections(bench, found, album)
    title = f"{TITLE}: {bench.split} split" if bench.split else TITLE
    write_json(out / "summary.json", summary(bench) | {"expectations": as_json(found)}, indent=2)
    pages = {"report.md": to_markdown(title, sections), "index.html": to_html(title, sections, album.folder)}
    for name, text in pages.items():
        with replacing(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    album.clean()
    logger.info("Report: %s", out / "index.html")


def _sections(bench: Bench, found: list[Expectation], album: Album) -> list[Section]:
    simple = bench.with_role("pretraining", "baseline")
    others = [m for m in bench.methods if bench.full(m) is None and m not in simple and m.role != "main"]
    main = [*bench.with_role("main"), *others]
    curves = [m for m in (*bench.with_role("pretraining"), *main) if m.iterations.get(bench.budget) != 0]
    by_name = functools.cache(lambda name: first_outcomes(bench, next(m for m in main if m.name == name)))

    def outcomes(method):
        return by_name(method.name)

    return [
        headline_section(bench, found),
        results_section(bench, album),
        difference_section(bench, album),
        reading_section(found),
        class_section(bench, main, album),
        confusion_section(main, outcomes, album),
        embedding_section(bench, album),
        gallery_section(main, outcomes, album),
        curve_section(bench, curves, album),
        methods_section(bench),
    ]


def summary(bench: Bench) -> dict:
    """The content of ``summary.json``: mean, standard deviation, n and values by method, task and metric."""
    methods = {}
    for method in bench.methods:
        spreads = {t.key: {m: bench.spread(method, t, m) for m in t.metrics} for t in TASKS}
        tasks = {key: _as_dicts(found) for key, found in spreads.items() if any(s.n for s in found.values())}
        entry = {"title": method.title, "seeds": [run.seed for run in bench.runs_of(method.name)], "figures": tasks}
        if full := bench.full(method):
            entry["full"] = full.name
            shared = [t for t in TASKS if t.key in tasks]
            differences = {t.key: {m: bench.difference(method, full, t, m) for m in t.metrics} for t in shared}
            entry["difference"] = {key: _as_dicts(found) for key, found in differences.items()}
        methods[method.name] = entry
    return {"version": 1, "split": bench.split, "budget": bench.budget, "seeds": list(bench.seeds), "methods": methods}


def _as_dicts(spreads: dict[str, Spread]) -> dict[str, dict]:
    return {m: {"mean": s.mean, "sd": s.sd, "n": s.n, "values": dict(s.values)} for m, s in spreads.items()}
