"""What the statistics of version 2 find: planted effects on the differences of real results.

    python -m minibench.folds.planted output/minibench2/results.json --effect 7

Each comparison's differences are centred, and their signs are exchanged at random, for all comparisons of a fold alike,
which keeps their spread and how they go together. Then the effect is added to one comparison, and the whole family is
judged with Holm's correction, as in the report.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minibench.folds.differences import Difference, compare
from minibench.folds.form import read_results
from minibench.paired import BETTER, WORSE, judge, paired_test
from PADing.command_line import CommandParser, above_zero, positive, quiet_ctrl_c, run_command
from PADing.errors import UserError

__all__ = ["Found", "simulate"]


@dataclass(frozen=True)
class Found:
    """Shares of the simulated families.

    Attributes:
        false_alarms: without any effect, families with a "better" or "worse".
        found: comparison -> how often its planted effect is "better".
    """

    false_alarms: float
    found: Mapping[str, float]


def simulate(
    differences: Mapping[str, Sequence[float]],
    effect: float,
    rounds: int,
    margins: Mapping[str, float],
    seed: int = 0,
) -> Found:
    """Plant an effect in points into each comparison in turn.

    Args:
        differences: comparison -> values by fold, of the same folds for all.
        effect: in points. rounds: families for each question. seed: of the signs.
        margins: comparison -> difference that counts as equal, in points.

    Raises:
        UserError: fewer than two folds, or other folds in some comparisons.
    """
    lengths = {len(values) for values in differences.values()}
    if len(lengths) != 1 or min(lengths) < 2:
        raise UserError("A simulation needs differences of at least two folds, the same folds for all comparisons.")
    table = np.array([list(values) for values in differences.values()], dtype=float)
    table -= table.mean(1, keepdims=True)
    draws, (number, folds) = np.random.default_rng(seed), table.shape
    # Centred values have less spread than the values of independent folds.
    table *= np.sqrt(folds / (folds - 1))

    def verdicts(shift: np.ndarray) -> list[str]:
        values = table * draws.choice([-1.0, 1.0], size=folds) + shift[:, None]
        tests = [paired_test(row.tolist(), margin) for row, margin in zip(values, equal, strict=True)]
        return [one.verdict for one in judge(tests)]

    nothing, equal = np.zeros(number), [margins[name] for name in differences]
    alarms = sum(bool({BETTER, WORSE} & set(verdicts(nothing))) for _ in range(rounds))
    found = {}
    for place, name in enumerate(differences):
        shift = nothing.copy()
        shift[place] = effect
        found[name] = sum(verdicts(shift)[place] == BETTER for _ in range(rounds)) / rounds
    return Found(alarms / rounds, found)


def _read(content: Mapping[str, Any]) -> dict[str, Difference]:
    """The comparisons of all folds."""
    every = compare(content)
    most = max((len(one.values) for one in every), default=0)
    return {f"{one.upper} - {one.lower}": one for one in every if len(one.values) == most}


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__, prog="python -m minibench.folds.planted")
    parser.add_argument("results", type=Path, help="results.json of version 2")
    parser.add_argument("--effect", type=above_zero, default=7.0, help="planted difference in points")
    parser.add_argument("--rounds", type=positive, default=500, help="simulated families (default: %(default)s)")
    return run_command(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    read = _read(read_results(args.results))
    values = {name: list(one.values.values()) for name, one in read.items()}
    found = simulate(values, args.effect, args.rounds, {name: one.margin for name, one in read.items()})
    print(f"no effect: a false alarm in {100 * found.false_alarms:.0f} % of the families")
    for name, share in found.found.items():
        print(f"{name}: {args.effect:g} points are found in {100 * share:.0f} %")


if __name__ == "__main__":
    quiet_ctrl_c()
    sys.exit(main())
