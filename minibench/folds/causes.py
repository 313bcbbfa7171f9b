"""The cause experiments: what ``causes.yaml`` declares, and the verdicts that follow from finished rows."""

import hashlib
import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minibench.folds.differences import EQUAL
from minibench.folds.trials import Trial
from minibench.paired import BETTER, EQUIVALENT, UNDECIDED, WORSE, PairedTest, judge, paired_test
from PADing.errors import UserError, did_you_mean
from PADing.yaml_files import read_yaml

__all__ = [
    "CAUSES",
    "Expectation",
    "Experiment",
    "Verdict",
    "all_rows",
    "file_hash",
    "read_causes",
    "rows_of_run",
    "trials_of",
    "verdicts",
]

CAUSES = Path(__file__).parent / "causes.yaml"
DIRECTIONS = {"above": BETTER, "below": WORSE, "equal": EQUIVALENT}
YES, NO, OPEN = "yes", "no", "open"
MEAN, SPREAD = "mean", "spread"


@dataclass(frozen=True)
class Expectation:
    """One comparison; the fields are those of ``causes.yaml``. ``second`` is a row or a number."""

    say: str
    first: str
    second: str | float
    metric: str
    expected: str
    claim: str
    of: str


@dataclass(frozen=True)
class Experiment:
    """One experiment. ``of_run``: its rows are those of the benchmark, because they train whole networks."""

    name: str
    question: str
    paper: str
    of_run: bool
    rows: Mapping[str, Trial]
    expectations: Sequence[Expectation]


@dataclass(frozen=True)
class Verdict:
    """What the rows say about an expectation.

    Attributes:
        values: differences by fold, in units of the metric. test: None with fewer than two folds.
        p: after Holm's correction over all comparisons, of a difference; None without a test.
        as_expected: YES, NO or OPEN. claim: the same for the paper's claim; "": the paper makes none.
    """

    experiment: str
    expectation: Expectation
    values: Mapping[int, float]
    test: PairedTest | None
    p: float | None
    as_expected: str
    claim: str


def file_hash(file: Path = CAUSES) -> str:
    """SHA-256 of the declarations, so that results say which expectations were theirs."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def read_causes(names: Sequence[str] | None = None, file: Path = CAUSES) -> list[Experiment]:
    """The experiments, those of ``names`` or all; UserError for a mistake in the file or an unknown name."""
    content = read_yaml(file, "Cause experiments")
    entries = content.get("experiments") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{file} needs `experiments`, a list.")
    found: dict[str, Experiment] = {}
    for number, entry in enumerate(entries, start=1):
        one = _experiment(entry, f"{file}: experiment {number}")
        if one.name in found:
            raise UserError(f"{file}: there are two experiments {one.name}.")
        found[one.name] = one
    for name in names or ():
        if name not in found:
            hint = did_you_mean(name, found, 1)
            raise UserError(f"There is no experiment {name!r}{hint}. Experiments: {', '.join(found)}.")
    return [found[name] for name in names or found]


def _experiment(entry: Any, where: str) -> Experiment:
    known = {"name", "question", "paper", "of_run", "rows", "expectations"}
    if not isinstance(entry, dict) or not {"name", "question", "rows", "expectations"} <= set(entry) <= known:
        raise UserError(f"{where} needs name, question, rows and expectations, and may have paper and of_run.")
    name, rows = str(entry["name"]), {}
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise UserError(f"{where}: its name must consist of a-z, 0-9 and _, but is {name!r}.")
    for row, about in entry["rows"].items():
        if not isinstance(about, dict) or "method" not in about or not set(about) <= {"method", "options", "track"}:
            raise UserError(f"{where}: the row {row} needs `method`, and may have `options` and `track`.")
        rows[str(row)] = Trial(f"{name}.{row}", about["method"], about.get("options", {}), about.get("track", ""))
    expectations = [_expectation(part, rows, f"{where} ({name})") for part in entry["expectations"]]
    return Experiment(
        name, entry["question"], entry.get("paper", ""), entry.get("of_run", False) is True, rows, expectations
    )


def _expectation(entry: Any, rows: Mapping[str, Trial], where: str) -> Expectation:
    needed, known = {"say", "compare", "metric", "expected"}, {"say", "compare", "metric", "expected", "claim", "of"}
    if not isinstance(entry, dict) or not needed <= set(entry) <= known:
        has = f"not {', '.join(map(str, entry))}" if isinstance(entry, dict) else f"but is {entry!r}"
        raise UserError(f"{where}: an expectation needs {', '.join(sorted(needed))}, and may have claim and of; {has}.")
    where = f"{where}: {entry['say']!r}"
    pair = entry["compare"]
    number = isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], (int, float))
    if not isinstance(pair, list) or len(pair) != 2 or pair[0] not in rows or not (number or pair[1] in rows):
        raise UserError(f"{where}: `compare` must name two rows, or a row and a number, but is {pair!r}.")
    for key in ("expected", "claim"):
        if entry.get(key, "above") not in DIRECTIONS:
            raise UserError(f"{where}: `{key}` must be one of {', '.join(DIRECTIONS)}, but is {entry[key]!r}.")
    of = entry.get("of", MEAN)
    if of not in (MEAN, SPREAD):
        raise UserError(f"{where}: `of` must be {MEAN} or {SPREAD}, but is {of!r}.")
    first, second = pair
    return Expectation(entry["say"], first, second, entry["metric"], entry["expected"], entry.get("claim", ""), of)


def trials_of(experiments: Sequence[Experiment], chosen: Callable[[str], Mapping[str, Any]]) -> list[Trial]:
    """All rows to run, with the hyperparameters ``chosen`` for their methods."""
    return [
        Trial(row.name, row.method, {**chosen(row.method), **row.options}, row.track)
        for one in experiments
        if not one.of_run
        for row in one.rows.values()
    ]


def rows_of_run(experiments: Sequence[Experiment], results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of a benchmark's ``results.json`` as rows of the experiments that are made of them."""
    found = []
    for trial in (trial for one in experiments if one.of_run for trial in one.rows.values()):
        for row in results.get("rows", ()):
            if row["method"] == trial.method:
                metrics = {key: value for part in row["results"].values() for key, value in part.items()}
                kept = {key: row[key] for key in ("fold", "seed", "hash", "processor_seconds")}
                found.append({"trial": trial.name, **kept, "metrics": metrics})
    return found


def all_rows(
    experiments: Sequence[Experiment], causes: Mapping[str, Any], results: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Rows of ``causes.json``, with those of the benchmark's ``results.json`` in place of its own copies of them.

    Raises:
        UserError: ``causes`` has no rows, or rows on segmenters that ``results`` does not have.
    """
    rows = causes.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "trial" in row for row in rows):
        raise UserError("causes.json has no `rows`. Make it again: python -m minibench causes RUN")
    if results is None:
        return rows
    known = {row.get("segmenter") for row in results["rows"]}
    if any(row.get("segmenter") not in known for row in rows if row.get("segmenter")):
        raise UserError("causes.json is of another run than results.json, or of more folds. Use those of one run.")
    own = {row.name for one in experiments if one.of_run for row in one.rows.values()}
    return [row for row in rows if row["trial"] not in own] + rows_of_run(experiments, results)


def verdicts(experiments: Sequence[Experiment], rows: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """The verdicts on all expectations: one family of tests, with Holm's correction. Without rows they are open."""
    every = [(one, part) for one in experiments for part in one.expectations]
    values = [_differences(one, part, rows) for one, part in every]
    tests = [
        paired_test(list(found.values()), EQUAL * _size(one, part, rows)) if len(found) > 1 else None
        for (one, part), found in zip(every, values, strict=True)
    ]
    judged = judge(tests)
    return [
        Verdict(
            one.name, part, found, test, judgement.p,
            _answer(judgement.verdict, part.expected), part.claim and _answer(judgement.verdict, part.claim),
        )
        for (one, part), found, test, judgement in zip(every, values, tests, judged, strict=True)
    ]  # fmt: skip


def _answer(verdict: str, wanted: str) -> str:
    return OPEN if verdict == UNDECIDED else YES if verdict == DIRECTIONS[wanted] else NO


def _differences(one: Experiment, part: Expectation, rows: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """First minus second, by fold, of the seeds that both have; a fold in which one has diverged is left out."""
    first = _by_seed(rows, one.rows[part.first].name, part.metric)
    if isinstance(part.second, (int, float)):
        return {fold: _of(own, part.of) - part.second for fold, own in first.items() if _enough(own, part.of)}
    second, found = _by_seed(rows, one.rows[part.second].name, part.metric), {}
    for fold in sorted(first.keys() & second.keys()):
        seeds = first[fold].keys() & second[fold].keys()
        pair = [{seed: side[fold][seed] for seed in seeds} for side in (first, second)]
        if _enough(pair[0], part.of):
            found[fold] = _of(pair[0], part.of) - _of(pair[1], part.of)
    return found


def _by_seed(rows: Sequence[Mapping[str, Any]], trial: str, metric: str) -> dict[int, dict[int, float]]:
    """Fold -> seed -> metric."""
    found: dict[int, dict[int, float]] = {}
    for row in rows:
        value = row.get("metrics", {}).get(metric) if row["trial"] == trial else None
        if isinstance(value, (int, float)) and math.isfinite(value):
            found.setdefault(row["fold"], {})[row["seed"]] = float(value)
    return found


def _enough(values: Mapping[int, float], of: str) -> bool:
    return len(values) > (of == SPREAD)


def _of(values: Mapping[int, float], of: str) -> float:
    return statistics.stdev(values.values()) if of == SPREAD else statistics.fmean(values.values())


def _size(one: Experiment, part: Expectation, rows: Sequence[Mapping[str, Any]]) -> float:
    """The mean of the second, by which "equal" is measured."""
    if isinstance(part.second, (int, float)):
        return abs(part.second)
    folds = _by_seed(rows, one.rows[part.second].name, part.metric).values()
    values = [_of(own, part.of) for own in folds if _enough(own, part.of)]
    return abs(statistics.fmean(values)) if values else 0.0
