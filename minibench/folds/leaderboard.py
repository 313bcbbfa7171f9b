"""The leaderboard of version 2: verified results, an entry for each method and track (docs/minibench/leaderboard.json).

An entry is the part of a ``results.json`` that belongs to the method, with the number of settings that were tried. So
whoever has the file can verify it again, and pair its folds with those of another entry.
"""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minibench.folds.scores import ausuc_key
from minibench.folds.submission import problems
from minibench.methods import INSTANCE, PANOPTIC
from PADing.errors import UserError
from PADing.files import REPOSITORY, read_json, write_json

__all__ = ["FILE", "LEAST_FOLDS", "add", "check", "table"]

FILE = REPOSITORY / "docs" / "minibench" / "leaderboard.json"
VERSION = 1
LEAST_FOLDS = 6
_SHARED = ("version", "recipe", "world", "track", "budget", "machine")


def add(results: Mapping[str, Any], name: str, tried: int, file: Path = FILE) -> str:
    """Add the entry of a method, or replace it; returns a sentence for the screen.

    Args:
        results: the content of a results.json.
        name: of the method.
        tried: number of hyperparameter settings that were tried, on the world `tuning`.
        file: the leaderboard.

    Raises:
        UserError: no such method; too few folds; a budget for tries; wrong results, which are named.
    """
    about = next((method for method in results.get("methods", ()) if method["name"] == name), None)
    rows = [row for row in results.get("rows", ()) if row["method"] == name]
    if about is None or not rows:
        known = ", ".join(method["name"] for method in results.get("methods", ()))
        raise UserError(f"The results have no method {name!r}. They have: {known}.")
    entry = {key: results.get(key) for key in _SHARED} | {"method": about, "tried": tried, "rows": rows}
    if found := check({"version": VERSION, "entries": [entry]}):
        raise UserError("The results cannot enter the leaderboard:\n" + "\n".join(found[:12]))
    entries = read_json(file, "Leaderboard")["entries"] if file.is_file() else []
    own = (name, entry["track"])
    kept = [other for other in entries if (other["method"]["name"], other["track"]) != own]
    write_json(file, {"version": VERSION, "entries": [*kept, entry]}, indent=1)
    return f"{file}: {len(kept) + 1} entries, {about['title']} with {len(rows)} rows."


def check(content: Mapping[str, Any]) -> list[str]:
    """What is wrong with a leaderboard, in words; empty if all its entries are verified."""
    if content.get("version") != VERSION or not isinstance(content.get("entries"), list):
        return [f"it has version {content.get('version')}; this program reads version {VERSION}"]
    found: list[str] = []
    for number, entry in enumerate(content["entries"], start=1):
        try:
            where = f"entry {number} ({entry['method']['name']})"
            folds = {row["fold"] for row in entry["rows"]}
            if entry["world"] != "test":
                found.append(f"{where}: results are those of the world test, not {entry['world']}")
            if len(folds) < LEAST_FOLDS:
                found.append(f"{where}: it has {len(folds)} folds, but at least {LEAST_FOLDS} are needed")
            if entry["budget"] not in ("standard", "full"):
                found.append(f"{where}: its budget is {entry['budget']}, not standard or full")
            if not isinstance(entry["tried"], int) or entry["tried"] < 1:
                found.append(f"{where}: the number of settings tried is {entry['tried']!r}")
            if {row["method"] for row in entry["rows"]} != {entry["method"]["name"]}:
                found.append(f"{where}: it has rows of other methods")
            for key in ("commit", "code", "config"):
                if entry["method"]["kind"] not in ("simple", "supervised") and not all(
                    row[key] for row in entry["rows"]
                ):
                    found.append(f"{where}: rows lack their {key}")
            if any(row["commit"].endswith("+") for row in entry["rows"]):
                found.append(f"{where}: rows were made with changes that are in no commit")
            found += [f"{where}: {problem}" for problem in problems(entry)]
        except (KeyError, TypeError, AttributeError) as error:
            found.append(f"entry {number}: it is damaged ({error!r})")
    return found


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
    rows = [titles, ["---"] * len(titles), *(cells for *_, cells in sorted(lines, key=lambda line: line[:2]))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
