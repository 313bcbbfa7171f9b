"""Whether a run repeats the figures of another one, made on another machine or with other second-stage seeds.

    python -m minibench.folds.repeat docs/minibench/v2/results.json output/minibench2/results.json

For each method, the first results give an interval in which the value of a further fold lies with a probability of
95 %: mean ± t · sd · sqrt(1 + 1/n) over its n folds. The folds of the second results are compared with it. Where both
have a fold, the differences within it say how much another machine and other seeds change: they share data, vectors
and classes, but no random number of the second stage if the seeds differ, and no rounding if the machine does.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy import special

from minibench.folds.differences import by_fold, compare
from minibench.folds.markdown import MISSING, table
from minibench.folds.scores import ausuc_key
from minibench.folds.submission import problems
from minibench.methods import INSTANCE, PANOPTIC, SEMANTIC
from minibench.paired import BETTER, LEVEL, WORSE, PairedTest, paired_test
from PADing.command_line import CommandParser, quiet_ctrl_c, run_command
from PADing.errors import UserError
from PADing.files import read_json

__all__ = ["Repeat", "repeats"]

_METRICS = [(t.key, m) for t in (PANOPTIC, SEMANTIC, INSTANCE) for m in (ausuc_key(t), t.harmonic)]


@dataclass(frozen=True)
class Repeat:
    """A metric of a method in both results, in percent.

    Attributes:
        low, high: the interval of a further fold, from the first results.
        values: of the second results, by fold. inside: how many of them are in the interval.
        test: of the differences second minus first over the folds that both have; None with fewer than two.
    """

    method: str
    metric: str
    low: float
    high: float
    values: Mapping[int, float]
    test: PairedTest | None

    @property
    def inside(self) -> int:
        """How many of ``values`` are in the interval, up to rounding."""
        return sum(self.low - 1e-6 <= value <= self.high + 1e-6 for value in self.values.values())


def repeats(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Repeat]:
    """All metrics of all methods that both have, and the first with at least two folds.

    Raises:
        UserError: they are of other data, vectors or lengths; or have nothing in common.
    """
    for key in ("world", "track", "budget", "recipe", "data"):
        if first.get(key) != second.get(key):
            raise UserError(f"The two results differ in `{key}`: {first.get(key)!r} and {second.get(key)!r}.")
    found = list(_compared(first, second))
    if not found:
        raise UserError("The two results have no method in common of which the first has at least two folds.")
    return found


def _compared(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Repeat]:
    for method in first["methods"]:
        for task, metric in _METRICS:
            a, b = (by_fold(results, method["name"], task, metric) for results in (first, second))
            if len(a) < 2 or not b:
                continue
            n, mean = len(a), statistics.fmean(a.values())
            factor = float(special.stdtrit(n - 1, 1 - LEVEL / 2)) * math.sqrt(1 + 1 / n)
            half = factor * statistics.stdev(a.values())
            test = paired_test([b[fold] - a[fold] for fold in a.keys() & b.keys()])
            yield Repeat(method["name"], metric, mean - half, mean + half, b, test)


def contradictions(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Comparisons that are better in one of the results and worse in the other."""
    verdicts = [{(one.upper, one.lower): one.found.verdict for one in compare(results)} for results in (first, second)]
    both = verdicts[0].keys() & verdicts[1].keys()
    return sorted(" - ".join(pair) for pair in both if {v[pair] for v in verdicts} == {BETTER, WORSE})


def _read(path: Path) -> dict[str, Any]:
    results = read_json(path, "Results of the mini benchmark")
    if found := problems(results):
        raise UserError(f"{path} cannot be compared: {found[0]}")
    return results


def _run(args: argparse.Namespace) -> None:
    first, second = _read(args.results), _read(args.other)
    found = repeats(first, second)
    lines = []
    for one in found:
        test = one.test
        change = f"{test.mean:+.1f} ({test.low:+.1f} to {test.high:+.1f})" if test else MISSING
        mean = f"{statistics.fmean(one.values.values()):.1f}"
        inside = f"{one.inside} of {len(one.values)}"
        lines.append(
            [one.method, one.metric.replace("_", " "), f"{one.low:.1f} to {one.high:.1f}", mean, inside, change]
        )
    titles = ["Method", "Metric", "95 % of folds", "Repeated", "Inside", "Difference within folds (95 % interval)"]
    print(table(titles, lines))
    hits, every = sum(one.inside for one in found), sum(len(one.values) for one in found)
    print(f"\n{hits} of {every} figures are within the intervals ({100 * hits / every:.0f} %; 95 % are expected).")
    against = contradictions(first, second)
    print(f"Comparisons with opposite verdicts: {', '.join(against) or 'none'}.")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__, prog="python -m minibench.folds.repeat")
    parser.add_argument("results", type=Path, help="results.json of version 2 that gives the intervals")
    parser.add_argument("other", type=Path, help="results.json that repeats it; it may have one fold and one seed")
    return run_command(_run, parser.parse_args(argv))


if __name__ == "__main__":
    quiet_ctrl_c()
    sys.exit(main())
