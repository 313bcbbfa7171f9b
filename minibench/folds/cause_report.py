"""The report of the cause experiments in Markdown, computed from their rows."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from minibench.folds.causes import NO, OPEN, YES, Experiment, Verdict
from minibench.folds.markdown import MISSING, table

__all__ = ["CLAIM", "cause_report", "metric_name"]

_SHOWN = {
    "PQ_AUSUC": "PQ AUSUC",
    "PQ_hm": "PQ hm",
    "AP50_AUSUC": "AP50 AUSUC",
    "AP50_hm": "AP50 hm",
    "acc_AUSUC": "accuracy AUSUC",
    "acc_un_only": "unseen-only accuracy",
    "norm_ratio_unseen": "length generated / real",
    "gradient_structure_share": "structure gradient",
}
CLAIM = {YES: "holds", NO: "does not hold", OPEN: "open", "": MISSING}


def metric_name(key: str) -> str:
    """A metric's name for readers, such as "unseen-only accuracy, things" for ``acc_un_only_things``."""
    whole = max((known for known in _SHOWN if f"{key}_".startswith(f"{known}_")), key=len, default="")
    rest = key.removeprefix(whole).strip("_").replace("_", " ")
    return ", ".join(filter(None, [_SHOWN.get(whole, ""), rest]))


def cause_report(
    experiments: Sequence[Experiment],
    verdicts: Sequence[Verdict],
    rows: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
) -> str:
    """The text. ``about``: world, folds and so on, of ``causes.json``."""
    seeds, folds = (", ".join(map(str, about[key])) for key in ("seeds", "folds"))
    chosen = "hyperparameters chosen on the world tuning" if about["chosen"] else "**no hyperparameters chosen yet**"
    parts = [
        "# Cause experiments of version 2",
        f"World {about['world']}, folds {folds or 'none'}, second-stage seeds {seeds}, budget {about['budget']}, "
        f"{about['images']} validation images, {chosen}. Everything below holds under these conditions. Differences "
        "are paired over folds, with 95 % intervals and Holm's correction over all comparisons of this page. *Equal* "
        "means within a tenth of the second; *open* means that nothing is shown.",
        _summary(experiments, verdicts),
    ]
    for one in experiments:
        parts += _section(one, [verdict for verdict in verdicts if verdict.experiment == one.name], rows)
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(experiments: Sequence[Experiment], verdicts: Sequence[Verdict]) -> str:
    lines = []
    for one in experiments:
        own = [verdict for verdict in verdicts if verdict.experiment == one.name]
        claims = [verdict.claim for verdict in own if verdict.claim]
        counts = ", ".join(f"{claims.count(a)} {CLAIM[a]}" for a in (YES, NO, OPEN) if a in claims)
        met = ", ".join(
            f"{n} {word}"
            for answer, word in ((YES, "as expected"), (NO, "otherwise"), (OPEN, "open"))
            if (n := [v.as_expected for v in own].count(answer))
        )
        lines.append([one.name, counts or MISSING, met])
    return table(["Experiment", "The paper's claim, by comparison", "Our expectation"], lines)


def _section(one: Experiment, verdicts: Sequence[Verdict], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    title = [f"## {one.name}", f"**{one.question}**" + (f" The paper: {one.paper}" if one.paper else "")]
    if one.of_run and not any(row["trial"] == trial.name for row in rows for trial in one.rows.values()):
        names = ",".join(dict.fromkeys(trial.method for trial in one.rows.values()))
        return [
            *title,
            f"Not run. The rows are {names} of `minibench run --version 2 --plugins minibench/folds/whole`.",
        ]
    lines: list[dict[str, str]] = []
    for name, trial in one.rows.items():
        own = [row for row in rows if row["trial"] == trial.name]
        broken = sum("metrics" not in row for row in own)
        cells = {key: _mean([row["metrics"].get(key) for row in own if "metrics" in row]) for key in _SHOWN}
        lines.append({"": name, **cells, "diverged": str(broken) if broken else ""})
    columns = [key for key in lines[0] if key == "" or any(line[key] not in (MISSING, "") for line in lines)]
    return [
        *title,
        table([key and metric_name(key) for key in columns], [[line[key] for key in columns] for line in lines]),
        table(_TITLES, list(map(_line, verdicts))),
    ]


_TITLES = [
    "Expected",
    "Comparison",
    "Metric",
    "Difference",
    "95 % interval",
    "p (Holm)",
    "As expected",
    "Paper's claim",
]


def _line(verdict: Verdict) -> list[str]:
    part, test = verdict.expectation, verdict.test
    mean = f"{statistics.fmean(verdict.values.values()):+.3g}" if verdict.values else "not run"
    return [
        part.say,
        f"{part.first} − {part.second}",
        metric_name(part.metric) + (" (spread)" if part.of == "spread" else ""),
        mean,
        f"{test.low:+.3g} to {test.high:+.3g}" if test else MISSING,
        MISSING if verdict.p is None else f"{verdict.p:.3f}",
        verdict.as_expected,
        CLAIM[verdict.claim],
    ]


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.fmean(known):.3g}" if known else MISSING
