"""Verifies a submitted ``results.json`` of version 2: frozen data, and metrics that follow from its own details.

    python -m minibench verify output/minibench2/results.json

Means over seen and unseen classes are computed again from the metrics by class, AUSUC from the points of the curves,
the unseen classes of each fold from the repository, and the identity of each row from what the row says of itself.
Accuracies of found segments have no details in the file, so they are compared with the limits that they set each other.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from minibench.folds.configs import VERSION
from minibench.folds.curve import POINTS, area
from minibench.folds.form import malformed
from minibench.folds.plan import SUPERVISED, row_hash
from minibench.folds.scores import REGION, ausuc_key
from minibench.folds.simple import SIMPLE
from minibench.methods import INSTANCE, SEMANTIC, TASKS, TASKS_OF, Task
from PADing.data.mini_v2.folds import unseen
from PADing.data.mini_v2.hashes import committed
from PADing.data.mini_v2.worlds import FOLDS, WORLDS, world
from PADing.errors import MOST_LISTED
from PADing.evaluation.results import harmonic_mean

__all__ = ["problems", "problems_of_rows", "told"]

# Points; metrics by class and points of curves have three decimals, so an area of curves is right to 0.001.
TOLERANCE = 0.002
ROUNDED = 0.001  # two of them
EXACT = 1e-6  # of what is computed from numbers with all decimals
# IoU curves count a part of the pixels.
SAMPLED = 3.0
# Points at which no class of one side competes: detections of score 0 come after all others.
NOTHING = 1.0
_LIMITS = ("acc_se", "acc_un", "acc_hm", "acc_AUSUC", "acc_se_only", "acc_un_only")
Method = Mapping[str, Any]


def problems(results: Any) -> list[str]:
    """What is wrong with the content of a results.json, in words; empty if it can be compared with others."""
    if found := malformed(results):
        return found
    rows = results["rows"]
    methods = {method["name"]: method for method in results["methods"]}
    if len(methods) < len(results["methods"]):
        found.append("a method is described twice")
    found += [f"there are rows of {name!r}, which is not described" for name in _names(rows) if name not in methods]
    folds, seeds = ({row[key] for row in rows} for key in ("fold", "seed"))
    for key, values in (("folds", folds), ("seeds", seeds - {0})):
        if sorted(values) != results[key]:
            found.append(f"its {key} are {results[key]}, but its rows have {sorted(values)}")
    found += problems_of_rows(results, results["methods"])
    frozen = committed(world(results["world"])) if not found else {}
    if frozen and results["data"] != {"world": frozen["world"], "vectors": frozen["vectors"][results["track"]]}:
        found.append("its data are not the frozen ones")
    return found


def problems_of_rows(results: Mapping[str, Any], methods: Sequence[Method]) -> list[str]:
    """The same of ``rows``, whose form must be right, with world, track and recipe; ``methods`` describe them."""
    if results["recipe"] != VERSION:
        return [f"it has recipe {results['recipe']}; this program verifies recipe {VERSION}"]
    name, track, rows = results["world"], results["track"], results["rows"]
    if name not in {one.name for one in WORLDS} or not rows:
        return [f"it has no rows, or an unknown world: {name!r}"]
    frozen = committed(world(name))
    if track not in frozen["vectors"]:
        return [f"its track is {track!r}, not one of {', '.join(frozen['vectors'])}"]
    wanted = {"world": name, "track": track, "data": frozen["world"], "vectors": frozen["vectors"][track]}
    found = [problem for method in methods for problem in _of_method(method)]
    described = {method["name"]: method for method in methods}
    met: set[tuple] = set()
    segmenters: dict[int, str] = {}
    for row in rows:
        method = described.get(row["method"])
        where, key = "{method}, fold {fold}, seed {seed}".format(**row), (row["method"], row["fold"], row["seed"])
        if key in met:
            found.append(f"{where}: it is there twice")
        met.add(key)
        if method is not None and method["kind"] in ("segmenter", "second", "simple"):
            if segmenters.setdefault(row["fold"], row["segmenter"]) != row["segmenter"]:
                found.append(f"{where}: its segmenter is not that of the fold's other rows")
        found += [f"{where}: {problem}" for problem in _of_row(row, wanted, method)]
    return found


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in rows))


def _of_method(method: Method) -> Iterator[str]:
    name, kind, limit = (method[key] for key in ("name", "kind", "limit"))
    known = "simple" if name in SIMPLE else "supervised" if name == SUPERVISED else ""
    if kind != known if known else kind not in ("segmenter", "second", "whole"):
        yield f"{name}: its kind is {kind!r}"
    if limit != (name == SUPERVISED or name in SIMPLE and SIMPLE[name].limit):
        yield f"{name}: whether it is a limit must not be {limit}"


def _of_row(row: Mapping[str, Any], wanted: Mapping[str, str], method: Method | None) -> Iterator[str]:
    for key, value in wanted.items():
        if row[key] != value:
            yield f"its {key} is {row[key]}, not the frozen {value}"
    if not 1 <= row["fold"] <= FOLDS:
        yield f"there is no fold {row['fold']}"
        return
    if row["version"] != VERSION:
        yield f"its recipe is {row['version']}, not {VERSION}"
    one = world(wanted["world"])
    hidden = set(unseen(one, row["fold"]))
    parts = set(row["results"]) | set(row["classes"]) | set(row["curves"])
    if strange := sorted(parts - {REGION, *(task.key for task in TASKS)}):
        yield f"it has metrics of {strange[0]!r}, which is no task"
    if method is not None:
        own = [row[key] for key in ("method", "fold", "seed", "data", "config", "track", "segmenter")]
        if row["hash"] != row_hash(method["kind"], *own):
            yield "its hash is not that of its method, fold, seed, config, data and segmenter"
        parts |= {task.key for task in TASKS_OF[method["task"]]}
    for task in TASKS:
        if task.key in parts:
            names = {c.name for c in one.categories() if c.isthing or task != INSTANCE}
            yield from _of_task(task, row, hidden, names)
    yield from _of_region(row["results"].get(REGION, {}))


def _of_task(task: Task, row: Mapping[str, Any], hidden: set[str], names: set[str]) -> Iterator[str]:
    values, classes, curve = (row[part].get(task.key) for part in ("results", "classes", "curves"))
    if values is None or classes is None or curve is None:
        yield f"{task.metric}: metrics, metrics by class or the curve are missing"
        return
    keys = {task.seen, task.unseen, task.harmonic, ausuc_key(task)}
    if odd := sorted((names ^ set(classes)) | (keys ^ set(values))):
        yield f"{task.metric}: {odd[0]!r} is missing, or is no class or metric of it"
        return
    points = [(seen, new) for _, seen, new in curve]
    if None in values.values() or None in classes.values() or any(None in point for point in points):
        yield f"{task.metric}: a number is missing"
        return
    if problem := _of_curve(curve):
        yield f"{task.metric}: {problem}"
        return
    sides = [[v for name, v in classes.items() if (name in hidden) == side] for side in (False, True)]
    means = [math.fsum(side) / len(side) for side in sides]
    zero = next((seen, new) for bias, seen, new in curve if bias == 0)
    # Rounding may change which of two points is better on an axis, and with it the area.
    areas = [area(points, slack) for slack in (-ROUNDED, 0, ROUNDED)]
    total = values[ausuc_key(task)]
    near = SAMPLED if task == SEMANTIC else TOLERANCE
    for key, value, expected, tolerance in (
        (task.seen, values[task.seen], means[0], TOLERANCE),
        (task.unseen, values[task.unseen], means[1], TOLERANCE),
        (task.harmonic, values[task.harmonic], harmonic_mean(values[task.seen], values[task.unseen]), EXACT),
        (ausuc_key(task), total, min(max(total, min(areas)), max(areas)), TOLERANCE),
        ("curve at bias 0, seen", zero[0], values[task.seen], near),
        ("curve at bias 0, unseen", zero[1], values[task.unseen], near),
    ):
        if not abs(value - expected) <= tolerance:
            yield f"{key} is {value:.3f}, but its own details give {expected:.3f}"


def _of_curve(curve: Sequence[Sequence[Any]]) -> str:
    """What is wrong with the points of a curve; "": nothing."""
    biases = [float(bias) for bias, _, _ in curve]
    if biases[:1] != [-math.inf] or biases[-1:] != [math.inf] or biases.count(0) != 1 or len(biases) > POINTS + 3:
        return f"its curve must have the biases -inf, 0, inf and at most {POINTS} others"
    if sorted(set(biases)) != biases:
        return "the biases of its curve must ascend"
    if curve[0][2] > NOTHING or curve[-1][1] > NOTHING:
        return "its curve has unseen classes at the bias -inf, or seen ones at inf"
    return ""


def _of_region(values: Mapping[str, float | None]) -> Iterator[str]:
    """Accuracy of found segments. A bias trades one side for the other, so four of the metrics bound the area."""
    numbers = [values.get(key) for key in _LIMITS]
    if set(values) != set(_LIMITS) or None in numbers:
        yield f"accuracies of found segments must be {', '.join(_LIMITS)}"
        return
    seen, new, both, total, seen_only, new_only = (float(number or 0) for number in numbers)
    if abs(both - harmonic_mean(seen, new)) > EXACT:
        yield f"acc_hm is {both:.3f}, but its own details give {harmonic_mean(seen, new):.3f}"
    if seen > seen_only + EXACT or new > new_only + EXACT:
        yield "accuracy among all classes is above that among one side's classes"
    low, high = seen * new / 100, (seen * new_only + (seen_only - seen) * new) / 100
    if not low - EXACT <= total <= high + EXACT:
        yield f"acc_AUSUC is {total:.3f}, but must be between {low:.3f} and {high:.3f}"


def told(found: Sequence[str], results: Mapping[str, Any]) -> str:
    """The problems for the screen, or what was verified."""
    if found:
        more = f"\nand {len(found) - MOST_LISTED} more" if len(found) > MOST_LISTED else ""
        return "\n".join(found[:MOST_LISTED]) + more
    rows = results["rows"]
    methods, folds = ({row[key] for row in rows} for key in ("method", "fold"))
    about = f"{len(rows)} rows of {len(methods)} methods on {len(folds)} folds"
    return f"{about}: metrics follow from their details, and accuracies of found segments are within their limits."
