"""The report of version 2 in Markdown: a ranked table with limits below it, comparisons, and the power reached."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from minibench.folds.differences import EQUAL, Difference, by_fold, compare, detectable, seed_noise
from minibench.folds.scores import REGION, ausuc_key
from minibench.methods import INSTANCE, PANOPTIC, SEMANTIC, Task

__all__ = ["ORACLE", "report"]

ORACLE = "oracle_probe"


def _of_task(task: Task) -> list[tuple[str, str, str]]:
    name = task.metric
    shown = [(ausuc_key(task), f"{name} AUSUC"), (task.harmonic, f"{name} hm"), (task.unseen, f"{name} unseen")]
    return [(task.key, key, title) for key, title in shown]


# Task, metric, title.
_COLUMNS = [
    *(column for task in (PANOPTIC, SEMANTIC, INSTANCE) for column in _of_task(task)),
    (REGION, "acc_AUSUC", "accuracy AUSUC"),
    (REGION, "acc_un_only", "unseen-only accuracy"),
]
_AP50 = 6  # the column of its AUSUC
_MISSING = "–"


def report(results: Mapping[str, Any]) -> str:
    """The text; ``results``: the content of results.json."""
    differences = compare(results)
    parts = [
        f"# Mini benchmark, version 2: world {results['world']}, track {results['track']}",
        _about(results, differences),
        _table(results),
        "% of the oracle: PQ AUSUC as a share of that of a linear classifier on real features of all classes, on the "
        "same segmenters. Rows in italics are limits: they know what no method may know, and are not ranked.",
        _comparisons(differences),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _about(results: Mapping[str, Any], differences: Sequence[Difference]) -> str:
    folds, noise = results["folds"], seed_noise(results)
    text = f"Folds {', '.join(map(str, folds))}; second-stage seeds {', '.join(map(str, results['seeds']))}."
    hours = sum(row["processor_seconds"] for row in results["rows"]) / 3600
    spent = sum(t["seconds"] * max(t["threads"], 1) for t in results["trainings"]) / 3600
    text += f" Processor time: at most {spent:.2f} h of warm start and segmenters, {hours:.2f} h of methods."
    if found := detectable(differences):
        text += (
            f" Smallest difference of AUSUC that a paired test over {len(folds)} folds finds with 80 % power, not "
            f"corrected for the number of tests: {found[0]:.1f} points (median of {len(differences)} comparisons), "
            f"{found[1]:.1f} (largest)."
        )
    else:
        text += " With one fold there is no interval and no power: these numbers decide nothing."
    if noise is not None:
        text += f" Two second-stage seeds of one method on one fold: standard deviation {noise:.2g} points of PQ AUSUC."
    return text


def _table(results: Mapping[str, Any]) -> str:
    rows: list[tuple[bool, bool, float, list[str]]] = []
    oracle = by_fold(results, ORACLE, PANOPTIC.key, ausuc_key(PANOPTIC))
    for method in results["methods"]:
        values = [list(by_fold(results, method["name"], task, metric).values()) for task, metric, _ in _COLUMNS]
        cells = list(map(_spread, values))
        # Methods without panoptic results come after the others.
        instance = not values[0]
        first = statistics.fmean(values[_AP50] or [0.0]) if instance else statistics.fmean(values[0])
        own = by_fold(results, method["name"], PANOPTIC.key, ausuc_key(PANOPTIC))
        shares = [100 * own[fold] / oracle[fold] for fold in own.keys() & oracle.keys() if oracle[fold]]
        cells.insert(1, f"{statistics.fmean(shares):.0f}" if shares else _MISSING)
        title = f"*{method['title']}*" if method["limit"] else method["title"]
        rows.append((method["limit"], instance, -first, [title, *cells]))
    titles = ["", _COLUMNS[0][2], "% of the oracle", *(title for *_, title in _COLUMNS[1:])]
    return _markdown(titles, [cells for *_, cells in sorted(rows, key=lambda row: row[:3])])


def _spread(values: Sequence[float]) -> str:
    if not values:
        return _MISSING
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def _comparisons(differences: Sequence[Difference]) -> str:
    if not differences:
        return ""
    rows = []
    for one in differences:
        test = one.test
        interval = f"{test.low:+.1f} to {test.high:+.1f}" if test else _MISSING
        least = f"{test.detectable:.1f}" if test else _MISSING
        p = _MISSING if one.found.p is None else f"{one.found.p:.3f}"
        mean = f"{statistics.fmean(one.values.values()):+.1f}"
        rows.append([one.claim, ausuc_key(one.task).replace("_", " "), mean, interval, p, one.found.verdict, least])
    titles = ["Expectation", "Metric", "Difference", "95 % interval", "p (Holm)", "Verdict", "Detectable"]
    text = f"Equivalent: shown to differ by less than {EQUAL:.0%} of the second's mean."
    return f"## Comparisons, paired over folds\n\n{text}\n\n" + _markdown(titles, rows)


def _markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
