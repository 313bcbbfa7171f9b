"""The leaderboard of version 2: verified results, an entry for each method and track (docs/minibench/leaderboard.json).

An entry is the part of a ``results.json`` that belongs to the method, with the number of settings that were tried. So
whoever has the file can verify it again, and pair its folds with those of another entry.
"""

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from minibench.folds.form import RESULTS_VERSION, malformed, malformed_entry
from minibench.folds.markdown import table as markdown
from minibench.folds.scores import ausuc_key
from minibench.folds.submission import problems_of_rows
from minibench.methods import INSTANCE, PANOPTIC
from PADing.errors import MOST_LISTED, UserError, short
from PADing.files import REPOSITORY, read_json, write_json

__all__ = ["FILE", "LEAST_FOLDS", "add", "check", "table"]

FILE = REPOSITORY / "docs" / "minibench" / "leaderboard.json"
VERSION = 1
LEAST_FOLDS = 6
_COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_SHARED = ("version", "recipe", "world", "track", "budget", "machine")


def add(results: Any, name: str, tried: int, file: Path = FILE) -> str:
    """Add the entry of a method, or replace it; returns a sentence for the screen.

    Args:
        results: the content of a results.json.
        name: of the method.
        tried: number of hyperparameter settings that were tried, on the world `tuning`.
        file: the leaderboard.

    Raises:
        UserError: no such method; too few folds; a budget for tries; wrong results, which are named.
    """
    if found := malformed(results):
        _refuse(found)
    about = next((method for method in results["methods"] if method["name"] == name), None)
    rows = [row for row in results["rows"] if row["method"] == name]
    if about is None or not rows:
        known = ", ".join(method["name"] for method in results["methods"])
        raise UserError(f"The results have no method {name!r}. They have: {known}.")
    entry = {key: results.get(key) for key in _SHARED} | {"method": about, "tried": tried, "rows": rows}
    if found := check({"version": VERSION, "entries": [entry]}):
        _refuse(found)
    content: Any = {"version": VERSION, "entries": []}
    if file.exists():
        content = read_json(file, "Leaderboard")
    if found := check(content):
        raise UserError(f"{file} cannot take an entry, because it is no verified leaderboard:\n" + _lines(found))
    entries = content["entries"]
    own = (name, entry["track"])
    kept = [other for other in entries if (other["method"]["name"], other["track"]) != own]
    write_json(file, {"version": VERSION, "entries": [*kept, entry]}, indent=1)
    replaced = ", in place of the entry that it had" if len(kept) < len(entries) else ""
    return f"{file}: {len(kept) + 1} entries, {about['title']} with {len(rows)} rows{replaced}."


def _refuse(found: Sequence[str]) -> NoReturn:
    """Raise the UserError that lists what is wrong."""
    raise UserError("The results cannot enter the leaderboard:\n" + _lines(found))


def _lines(found: Sequence[str]) -> str:
    more = [f"and {len(found) - MOST_LISTED} more"] if len(found) > MOST_LISTED else []
    return "\n".join([*found[:MOST_LISTED], *more])


def check(content: Any) -> list[str]:
    """What is wrong with a leaderboard, in words; empty if all its entries are verified."""
    own = content if isinstance(content, dict) else {}
    if own.get("version") != VERSION or not isinstance(own.get("entries"), list):
        wanted = f"it must have version {VERSION} and a list of entries"
        return [f"{wanted}, but has version {short(own.get('version'))} and entries {short(own.get('entries'))}"]
    found: list[str] = []
    met: set[tuple[str, str]] = set()
    for number, entry in enumerate(content["entries"], start=1):
        if damage := malformed_entry(entry):
            found += [f"entry {number}: {problem}" for problem in damage]
            continue
        name = entry["method"]["name"]
        where = f"entry {number} ({name})"
        if (name, entry["track"]) in met:
            found.append(f"{where}: the method has two entries on this track")
        met.add((name, entry["track"]))
        found += [f"{where}: {problem}" for problem in _of_entry(entry)]
    return found


def _of_entry(entry: Mapping[str, Any]) -> Iterator[str]:
    folds = {row["fold"] for row in entry["rows"]}
    if entry["world"] != "test":
        yield f"results are those of the world test, not {entry['world']}"
    if len(folds) < LEAST_FOLDS:
        yield f"it has {len(folds)} folds, but at least {LEAST_FOLDS} are needed"
    if entry["budget"] not in ("standard", "full"):
        yield f"its budget is {entry['budget']}, not standard or full"
    if entry["version"] != RESULTS_VERSION:
        yield f"its rows have version {entry['version']}, not {RESULTS_VERSION}"
    if entry["method"]["limit"]:
        yield "it is a limit, which knows what no method may know"
    if {row["method"] for row in entry["rows"]} != {entry["method"]["name"]}:
        yield "it has rows of other methods"
    if entry["method"]["kind"] != "simple" and not all(row["code"] and row["config"] for row in entry["rows"]):
        yield "rows lack their code or config"
    commits = {row["commit"] for row in entry["rows"]}
    if any(commit.strip().endswith("+") for commit in commits):
        yield "rows were made with changes that are in no commit"
    elif wrong := sorted(commit for commit in commits if not _COMMIT.fullmatch(commit)):
        yield f"the commit of rows is {short(wrong[0])}, which is no full Git hash"
    yield from problems_of_rows(entry, [entry["method"]])


def table(content: Mapping[str, Any]) -> str:
    """The entries in Markdown, the best first."""
    lines = []
    for entry in content["entries"]:
        task = INSTANCE if entry["method"]["task"] == "instance" else PANOPTIC
        values: dict[int, list[float]] = {}
        for row in entry["rows"]:
            values.setdefault(row["fold"], []).append(row["results"][task.key][ausuc_key(task)])
        folds = [statistics.fmean(own) for own in values.values()]
        hours = sum(row["processor_seconds"] for row in entry["rows"]) / 3600
        spread = f"{statistics.fmean(folds):.1f} ± {statistics.stdev(folds):.1f}"
        row = entry["rows"][0]
        cells = [entry["method"]["title"], entry["track"], ausuc_key(task).replace("_", " "), spread, str(len(folds))]
        cells += [str(entry["tried"]), f"{hours:.2f}", row["commit"][:10], row["data"][:10]]
        lines.append((task == INSTANCE, -statistics.fmean(folds), cells))
    titles = [
        "Method",
        "Track",
        "Metric",
        "Mean ± sd over folds",
        "Folds",
        "Settings tried",
        "Hours on a segmenter",
        "Commit",
        "Data",
    ]
    return markdown(titles, [cells for *_, cells in sorted(lines, key=lambda line: line[:2])])
