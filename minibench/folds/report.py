"""The report of version 2 in Markdown, in the order of a paper's results: findings, tables, comparisons, components."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from minibench.folds.components import components
from minibench.folds.differences import EQUAL, Difference, by_fold, compare
from minibench.folds.findings import ORACLE, findings, setting
from minibench.folds.markdown import MISSING, spread, table
from minibench.folds.scores import REGION, ausuc_key
from minibench.methods import INSTANCE, PANOPTIC, SEMANTIC, Task

__all__ = ["report"]

_NAMED = ((REGION, "acc_AUSUC", "accuracy AUSUC"), (REGION, "acc_un_only", "unseen-only accuracy"))


def report(results: Mapping[str, Any], causes: Mapping[str, Any] | None = None) -> str:
    """The text; ``results``: the content of results.json; ``causes``: that of causes.json, if they were run."""
    differences = compare(results)
    parts = [
        "# Results of version 2",
        setting(results),
        findings(results, differences),
        _methods(results, PANOPTIC, "Panoptic segmentation", _NAMED),
        "Mean ± standard deviation over folds, in percent; *hm* is the harmonic mean of seen and unseen at bias 0. "
        "*% of the oracle* is the share of the PQ AUSUC of a linear classifier on real features of all classes. "
        "Rows in italics are limits: they know what no method may know, and are not ranked.",
        _methods(results, INSTANCE, "Instance segmentation", _NAMED),
        _methods(results, SEMANTIC, "Semantic segmentation"),
        _comparisons(differences),
        components(results, differences, causes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _methods(
    results: Mapping[str, Any], task: Task, title: str, more: Sequence[tuple[str, str, str]] = ()
) -> str:  # fmt: skip
    """The methods with results of a task, ranked by its AUSUC, with the limits below."""
    first, name = ausuc_key(task), task.metric
    columns = [(task.key, first, f"{name} AUSUC"), (task.key, task.harmonic, f"{name} hm")]
    columns += [(task.key, task.seen, "seen"), (task.key, task.unseen, "unseen"), *more]
    oracle = by_fold(results, ORACLE, task.key, first) if task is PANOPTIC else {}
    rows: list[tuple[bool, float, list[str]]] = []
    for method in results["methods"]:
        own = by_fold(results, method["name"], task.key, first)
        if not own:
            continue
        values = [by_fold(results, method["name"], key, metric).values() for key, metric, _ in columns]
        cells = [spread(list(value)) for value in values]
        if task is PANOPTIC:
            shares = [100 * own[fold] / oracle[fold] for fold in own.keys() & oracle.keys() if oracle[fold]]
            cells.insert(1, f"{statistics.fmean(shares):.0f}" if shares else MISSING)
        shown = f"*{method['title']}*" if method["limit"] else method["title"]
        rows.append((method["limit"], -statistics.fmean(own.values()), [shown, *cells]))
    if not rows:
        return ""
    titles = ["", *(shown for *_, shown in columns)]
    if task is PANOPTIC:
        titles.insert(2, "% of the oracle")
    return f"## {title}\n\n" + table(titles, [cells for *_, cells in sorted(rows, key=lambda row: row[:2])])


def _comparisons(differences: Sequence[Difference]) -> str:
    if not differences:
        return ""
    rows = []
    for one in differences:
        test = one.test
        interval = f"{test.low:+.1f} to {test.high:+.1f}" if test else MISSING
        least = f"{test.detectable:.1f}" if test else MISSING
        p = MISSING if one.found.p is None else f"{one.found.p:.3f}"
        mean = f"{statistics.fmean(one.values.values()):+.1f}"
        rows.append([one.claim, f"{one.task.metric} AUSUC", mean, interval, p, one.found.verdict, least])
    titles = ["Expectation", "Metric", "Difference", "95 % interval", "p (Holm)", "Verdict", "Detectable"]
    text = (
        "Paired t-tests over folds. The verdicts are corrected by Holm's method for the number of comparisons; the "
        f"intervals are not. *Equivalent*: shown to differ by less than {100 * EQUAL:.0f} % of the second's mean. "
        "*Detectable*: the difference that the test alone finds with 80 % probability."
    )
    return f"## Comparisons\n\n{text}\n\n{table(titles, rows)}"
