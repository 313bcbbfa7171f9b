"""Puts mistakes into modules, one at a time, and counts those that the tests notice.

The modules, and the tests that must notice, stand in modules.yaml; reasons.yaml explains mistakes that no test can or
should notice. Files are not changed. The result is written after each mistake, so a run can be stopped and continued.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import yaml

from tests.mutation.mutants import Mutant, sample
from tests.mutation.trial import TestsFail, import_heavy_packages, normal_time, notices

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
LEAST = 0.8


def main() -> int:
    """Run the command line; returns its status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other mistakes (default: 0)")
    parser.add_argument("--each", type=int, default=6, help="mistakes in each module (default: 6)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only modules whose path contains TEXT")
    parser.add_argument("--again", action="store_true",
                        help="try what was not noticed again, when tests have been added")  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("output/mutation.json"), metavar="FILE",
                        help="result, continued if it exists (default: output/mutation.json)")  # fmt: skip
    args = parser.parse_args()
    modules: dict[str, list[str]] = yaml.safe_load((HERE / "modules.yaml").read_text(encoding="utf-8"))
    modules = {name: tests for name, tests in modules.items() if args.only in name}
    if not modules or args.each < 1:
        parser.error("no module of modules.yaml contains --only" if args.each > 0 else "--each must be at least 1")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    rows = json.loads(args.output.read_text(encoding="utf-8")) if args.output.exists() else []
    os.environ["OMP_NUM_THREADS"] = "1"
    import_heavy_packages()
    samples = {module: sample(ROOT, module, args.each, args.seed) for module in modules}
    reasons = load_reasons()
    try:
        for module, mutants in samples.items():
            _try_module(module, mutants, modules[module], args, rows, reasons)
    except TestsFail as error:
        print(error, file=sys.stderr)
        return 2
    # The file may also have mistakes of another seed, of other modules, or in code that has changed since.
    drawn = {mutant for mutants in samples.values() for mutant in mutants}
    return report([row for row in rows if Mutant(**row["mutant"]) in drawn], reasons)


def _try_module(
    module: str,
    mutants: list[Mutant],
    tests: list[str],
    args: argparse.Namespace,
    rows: list[dict],
    reasons: set[tuple[str, str, str]],
) -> None:
    done = {Mutant(**row["mutant"]): row for row in rows}
    left = [mutant for mutant in mutants if mutant not in done or args.again and _missed(done[mutant], reasons)]
    if not left:
        return
    log = args.output.with_suffix(".log")
    normal = normal_time(ROOT, tests, log)
    print(f"{module}: {' '.join(tests)} take {normal:.1f} s", flush=True)
    for mutant in left:
        noticed = notices(ROOT, tests, log, module, mutant.source(ROOT), normal)
        before, after = mutant.change(ROOT)
        row = {"mutant": asdict(mutant), "before": before, "after": after, "noticed": noticed, "again": mutant in done}
        rows[:] = [other for other in rows if other["mutant"] != row["mutant"]] + [row]
        temporary = args.output.with_suffix(".tmp")
        temporary.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        temporary.replace(args.output)
        print(f"  {mutant.line}: {before}  ->  {after}: {noticed or 'NOT NOTICED'}", flush=True)


def _missed(row: Mapping, reasons: set[tuple[str, str, str]]) -> bool:
    return not row["noticed"] and (row["mutant"]["module"], row["before"], row["after"]) not in reasons


def load_reasons() -> set[tuple[str, str, str]]:
    """(module, line before, line after) of mistakes that need not be noticed."""
    found = yaml.safe_load((HERE / "reasons.yaml").read_text(encoding="utf-8")) or []
    return {(item["module"], item["before"], item["after"]) for item in found}


def report(rows: Iterable[Mapping], reasons: set[tuple[str, str, str]]) -> int:
    """Print a table by package, and what was not noticed; 1 if a package is below ``LEAST``, else 0.

    A mistake with a reason counts neither as noticed nor as missed. What ``--again`` has tried was missed at first.
    """
    counts: dict[str, Counter] = {}
    for row in rows:
        module = row["mutant"]["module"]
        outcome = "noticed" if row["noticed"] else "missed" if _missed(row, reasons) else "explained"
        count = counts.setdefault("/".join(module.split("/")[:2]), Counter())
        count[outcome] += 1
        count["again"] += outcome == "noticed" and row.get("again", False)
        if outcome == "missed":
            print(f"{module}:{row['mutant']['line']}\n  - {row['before']}\n  + {row['after']}")
    print("| package | mistakes | noticed | of these missed at first | not noticed | explained | share noticed |")
    print("| --- " * 7 + "|")
    shares = []
    for name, count in sorted(counts.items()):
        shares.append(count["noticed"] / max(count["noticed"] + count["missed"], 1))
        tried = count["noticed"] + count["missed"] + count["explained"]
        columns = [tried, count["noticed"], count["again"], count["missed"], count["explained"], f"{shares[-1]:.0%}"]
        print(f"| {name} | {' | '.join(map(str, columns))} |")
    return int(min(shares, default=1.0) < LEAST)


if __name__ == "__main__":
    sys.exit(main())
