"""Combines and writes the report of a benchmark folder."""

import functools
import logging
from pathlib import Path

import matplotlib

from minibench.bench import OTHER, Bench, Spread, read_bench
from minibench.comparisons import Comparison, compare, merge_twins
from minibench.methods import TASKS, Method
from minibench.report import charts
from minibench.report.charts import Album
from minibench.report.curves import class_section, curve_section
from minibench.report.distractors import distractor_section
from minibench.report.document import Section, Text, say
from minibench.report.embeddings import embedding_section
from minibench.report.images import confusion_section, gallery_section
from minibench.report.pages import to_html, to_markdown
from minibench.report.predictions import Outcome, Validation, first_outcomes
from minibench.report.reading import as_json, headline_section, reading_section
from minibench.report.results import difference_section, methods_section, results_section
from minibench.runs import Run
from PADing.files import replacing, write_json

logger = logging.getLogger(__name__)
TITLE = "Mini benchmark of zero-shot segmentation"


def write_report(folder: Path, to: Path | None = None) -> None:
    """Write ``report.md``, ``pictures.md``, ``index.html`` with both, ``summary.json`` and ``pictures/``.

    Args:
        folder: of the benchmark. All of ``report.md`` comes from its ``results.json``, ``other_settings.json`` and
            ``distractors.json``;
            ``pictures.md`` comes from the run folders that these name, and is left as it is if none exists.
        to: where the report is written; default: ``<folder>/report``. The features of the first PADing run are
            computed if they are missing.

    Raises:
        UserError: ``results.json`` is missing or damaged.
    """
    whole = read_bench(folder)
    other = read_bench(folder, OTHER) if (folder / OTHER).is_file() else None
    bench, out = merge_twins(whole), whole.folder / "report" if to is None else to.absolute()
    album, found = Album(out / "pictures"), compare(bench)
    with matplotlib.rc_context(fname=charts.STYLE):
        numbers = _numbers(bench, whole, found, other, album)
        pictures = _pictures(bench, album) if any(run.folder.is_dir() for run in bench.runs) else []
    title = f"{TITLE}: {bench.split} split" if bench.split else TITLE
    write_json(out / "summary.json", summary(whole) | {"comparisons": as_json(found)}, indent=2)
    pages = {"report.md": to_markdown(title, [*numbers, Section("", "pictures", [Text(say("pictures"), "note")])])}
    if pictures:
        pages["pictures.md"] = to_markdown(f"{title}, pictures", pictures)
    # The summary first, the list of methods last.
    pages["index.html"] = to_html(title, [*numbers[:-1], *pictures, numbers[-1]], album.folder)
    for name, text in pages.items():
        with replacing(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if pictures:
        album.clean()
    logger.info("Report: %s", out / "index.html")


def _main(bench: Bench) -> list[Method]:
    """The methods that are looked at closely: those of the papers, then what is neither simple nor a variant."""
    simple = bench.with_role("pretraining", "baseline")
    others = [m for m in bench.methods if bench.full(m) is None and m not in simple and m.role != "main"]
    return [*bench.with_role("main"), *others]


def _numbers(bench: Bench, whole: Bench, found: list[Comparison], other: Bench | None, album: Album) -> list[Section]:
    """The sections that need ``results.json`` only, the summary first and the list of methods last."""
    sections = [
        headline_section(whole, found),
        results_section(bench, album),
        reading_section(bench, found, other),
        difference_section(bench, found, album),
        class_section(bench, _main(bench), album),
        distractor_section(whole.folder),
        methods_section(whole),
    ]
    return [section for section in sections if section is not None]


def _pictures(bench: Bench, album: Album) -> list[Section]:
    """The sections that need the folders of runs."""
    main = _main(bench)
    curves = [m for m in (*bench.with_role("pretraining"), *main) if m.iterations.get(bench.budget) != 0]
    by_name = functools.cache(lambda name: first_outcomes(bench, next(m for m in main if m.name == name)))

    def outcomes(method: Method) -> tuple[Run, Validation, list[Outcome]]:
        return by_name(method.name)

    return [
        confusion_section(main, outcomes, album),
        embedding_section(bench, album),
        gallery_section(main, outcomes, album),
        curve_section(bench, curves, album),
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
