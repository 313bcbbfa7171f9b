"""The first lines of the report of version 2: what was measured and what it shows, in sentences computed from it."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from minibench.folds.differences import EQUAL, Difference, by_fold, detectable, seed_noise
from minibench.folds.scores import REGION, ausuc_key
from minibench.methods import PANOPTIC
from minibench.paired import BETTER, EQUIVALENT, UNDECIDED, WORSE

__all__ = ["ORACLE", "findings", "setting"]

ORACLE, TRUE_NAMES = "oracle_probe", "oracle_label"
_VERDICTS = {
    BETTER: ("Better, as expected", "over"),
    WORSE: ("Worse, against the expectation", "than"),
    EQUIVALENT: (f"Equivalent, to within {100 * EQUAL:.0f} % of the second's mean", "and"),
    UNDECIDED: ("Undecided", "and"),
}


def setting(results: Mapping[str, Any]) -> str:
    """What was compared, and on what."""
    folds, seeds = results["folds"], results["seeds"]
    ranked = sum(not method["limit"] for method in results["methods"])
    machine = results.get("machine", {})
    where = f" on {machine['cores']} cores of {machine['cpu']}" if {"cores", "cpu"} <= set(machine) else ""
    hours = sum(row["processor_seconds"] for row in results["rows"]) / 3600
    spent = sum(t["seconds"] * max(t["threads"], 1) for t in results["trainings"]) / 3600
    return (
        f"{ranked} methods and {len(results['methods']) - ranked} limits on {_plural(len(folds), 'fold')} "
        f"({', '.join(map(str, folds))}) of the world `{results['world']}` with the class vectors "
        f"`{results['track']}`; {_plural(len(seeds), 'second-stage seed')} in each fold. A fold has unseen "
        "classes and a segmenter of its own and is the unit of all statistics; its value is the mean of its seeds. "
        "Methods are ranked by the area under the seen-unseen curve of PQ (PQ AUSUC), which no bias of the "
        f"unseen logits changes. Trained{where}: at most {spent:.2f} h of processor time for warm start and "
        f"segmenters, {hours:.2f} h for the methods."
    )


def findings(results: Mapping[str, Any], differences: Sequence[Difference]) -> str:
    """One line for each verdict that occurs, for the power, and for what limits the methods."""
    names = {method["name"]: method["title"] for method in results["methods"]}
    lines = []
    for verdict, (title, word) in _VERDICTS.items():
        if own := [_shown(one, names, word) for one in differences if one.found.verdict == verdict]:
            lines.append(f"**{title}:** {'; '.join(own)}.")
    lines += [text for text in (_power(results, differences), _limits(results)) if text]
    return "\n".join(f"- {line}" for line in lines)


def _shown(one: Difference, names: Mapping[str, str], word: str) -> str:
    mean = statistics.fmean(one.values.values())
    interval = f", {one.test.low:+.1f} to {one.test.high:+.1f}" if one.test else ""
    pair = f"{names[one.upper]} {word} {names[one.lower]}"
    return f"{pair} ({mean:+.1f} {one.task.metric} AUSUC{interval})"


def _power(results: Mapping[str, Any], differences: Sequence[Difference]) -> str:
    if not (found := detectable(differences)):
        return "**Power:** none. One fold has no interval; its numbers decide nothing."
    text = (
        f"**Power:** a paired test over {len(results['folds'])} folds finds a difference of {found[0]:.1f} points of "
        f"AUSUC with 80 % probability (median of {len(differences)} comparisons, largest {found[1]:.1f}; not corrected "
        "for their number)."
    )
    noise = seed_noise(results)
    return text if noise is None else f"{text} Seeds of one method in one fold: standard deviation {noise:.2g} points."


def _limits(results: Mapping[str, Any]) -> str:
    key = ausuc_key(PANOPTIC)
    masks = by_fold(results, TRUE_NAMES, PANOPTIC.key, PANOPTIC.harmonic)
    probe = by_fold(results, ORACLE, PANOPTIC.key, key)
    best = max(
        (m for m in results["methods"] if not m["limit"] and by_fold(results, m["name"], PANOPTIC.key, key)),
        key=lambda m: statistics.fmean(by_fold(results, m["name"], PANOPTIC.key, key).values()),
        default=None,
    )
    if not masks or best is None or not (known := sum(probe.values())):
        return ""
    names = by_fold(results, best["name"], REGION, "acc_un_only")
    own = statistics.fmean(by_fold(results, best["name"], PANOPTIC.key, key).values())
    share = 100 * own * len(probe) / known
    text = (
        f"**Limits:** with true names the segmenters' masks reach a harmonic mean of "
        f"{statistics.fmean(masks.values()):.0f} PQ. The highest row, {best['title']}, reaches {share:.0f} % of the PQ "
        "AUSUC of a linear classifier that has seen every class"
    )
    if names:
        text += f", and names {statistics.fmean(names.values()):.0f} % of unseen segments among unseen classes"
    return text + "."


def _plural(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
