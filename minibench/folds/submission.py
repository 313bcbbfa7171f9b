"""Verifies a submitted ``results.json`` of version 2: frozen data, and metrics that follow from its own details.

    python -m minibench verify output/minibench2/results.json

Means over seen and unseen classes are computed again from the metrics by class, AUSUC from the points of the curves,
and the unseen classes of each fold from the repository.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from minibench.folds.configs import VERSION
from minibench.folds.curve import area
from minibench.folds.rows import RESULTS_VERSION
from minibench.folds.scores import ausuc_key
from minibench.methods import SEMANTIC, TASKS, Task
from PADing.data.mini_v2.folds import unseen
from PADing.data.mini_v2.hashes import committed
from PADing.data.mini_v2.worlds import FOLDS, WORLDS, world
from PADing.evaluation.results import harmonic_mean

__all__ = ["problems"]

# Points; metrics by class and points of curves have three decimals.
TOLERANCE = 0.01
# IoU curves count a part of the pixels.
SAMPLED = 3.0


def problems(results: Mapping[str, Any]) -> list[str]:
    """What is wrong with the content of a results.json, in words; empty if it can be compared with others."""
    if results.get("version") != RESULTS_VERSION or results.get("recipe") != VERSION:
        own = f"version {results.get('version')}, recipe {results.get('recipe')}"
        return [f"it has {own}; this program verifies version {RESULTS_VERSION}, recipe {VERSION}"]
    name, rows = results.get("world"), results.get("rows")
    if name not in {one.name for one in WORLDS} or not isinstance(rows, list) or not rows:
        return [f"it has no rows, or an unknown world: {name!r}"]
    frozen = committed(world(name))
    track = results.get("track")
    if track not in frozen["vectors"]:
        return [f"its track is {track!r}, not one of {', '.join(frozen['vectors'])}"]
    wanted = {"world": name, "track": track, "data": frozen["world"], "vectors": frozen["vectors"][track]}
    found: list[str] = []
    met: set[tuple] = set()
    for number, row in enumerate(rows, start=1):
        where = f"row {number}"
        try:
            where = f"{row['method']}, fold {row['fold']}, seed {row['seed']}"
            key = row["method"], row["fold"], row["seed"]
            if key in met:
                found.append(f"{where}: it is there twice")
            met.add(key)
            found += [f"{where}: {problem}" for problem in _of_row(row, wanted)]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            found.append(f"{where}: it is damaged ({error!r})")
    return found


def _of_row(row: Mapping[str, Any], wanted: Mapping[str, str]) -> Iterator[str]:
    for key, value in wanted.items():
        if row[key] != value:
            yield f"its {key} is {row[key]}, not the frozen {value}"
    if not isinstance(row["fold"], int) or not 1 <= row["fold"] <= FOLDS:
        yield f"there is no fold {row['fold']}"
        return
    if row["version"] != VERSION:
        yield f"its recipe is {row['version']}, not {VERSION}"
    hidden = set(unseen(world(row["world"]), row["fold"]))
    known = {category.name for category in world(row["world"]).categories()}
    for task in TASKS:
        if task.key in row["results"]:
            yield from _of_task(task, row, hidden, known)


def _of_task(task: Task, row: Mapping[str, Any], hidden: set[str], known: set[str]) -> Iterator[str]:
    values, classes, curve = (row[part][task.key] for part in ("results", "classes", "curves"))
    if foreign := sorted(set(classes) - known):
        yield f"{task.metric}: {foreign[0]!r} is no class of its world"
        return
    sides = [[v for name, v in classes.items() if (name in hidden) == side] for side in (False, True)]
    means = [math.fsum(side) / len(side) if side else math.nan for side in sides]
    points = [(seen, new) for _, seen, new in curve]
    zero = next(((seen, new) for bias, seen, new in curve if bias == 0), (math.nan, math.nan))
    near = SAMPLED if task == SEMANTIC else TOLERANCE
    for key, value, expected, tolerance in (
        (task.seen, values[task.seen], means[0], TOLERANCE),
        (task.unseen, values[task.unseen], means[1], TOLERANCE),
        (task.harmonic, values[task.harmonic], harmonic_mean(values[task.seen], values[task.unseen]), TOLERANCE),
        (ausuc_key(task), values[ausuc_key(task)], area(points), TOLERANCE),
        ("curve at bias 0, seen", zero[0], values[task.seen], near),
        ("curve at bias 0, unseen", zero[1], values[task.unseen], near),
    ):
        if not 0 <= value <= 100 or not abs(value - expected) <= tolerance:
            yield f"{key} is {value:.3f}, but its own details give {expected:.3f}"


def told(found: Sequence[str], results: Mapping[str, Any]) -> str:
    """The problems for the screen, or what was verified."""
    if found:
        return "\n".join(found[:12]) + (f"\nand {len(found) - 12} more" if len(found) > 12 else "")
    rows = results["rows"]
    methods, folds = ({row[key] for row in rows} for key in ("method", "fold"))
    return f"{len(rows)} rows of {len(methods)} methods on {len(folds)} folds: all metrics follow from their details."
