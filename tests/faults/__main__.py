"""The fault battery: ends, disturbs and misinforms the commands of this project, and checks what becomes of it.

    python -m tests.faults                              everything
    python -m tests.faults --only kills --minutes 10    some kinds, for some time
    python -m tests.faults --continue                   what an earlier run with this seed has not tried yet

Each failure prints the command that repeats it. Results are in OUTPUT/results.jsonl and OUTPUT/table.md as they come.
The exit status is 1 if anything failed.
"""

import argparse
import gc
import os
import shutil
import sys
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # threads do not survive a fork, and one core is enough
    os.environ[_name] = "1"

KINDS = ("kills", "files", "surroundings", "inputs", "soak")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1, help="decides every fault (1)")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="kinds, subjects or cases: kills/data/003"
    )
    parser.add_argument("--minutes", type=float, default=0, help="end after this time; 0: no limit")
    parser.add_argument("--scale", type=float, default=1, help="share of the cases, or a multiple (1)")
    parser.add_argument("--continue", dest="go_on", action="store_true", help="leave out what has been tried before")
    parser.add_argument("--output", type=Path, default=Path("output/faults"), help="folder (output/faults)")
    parser.add_argument("--list", action="store_true", help="print the names of the cases alone")
    args = parser.parse_args()
    return _run(args)


def _run(args: argparse.Namespace) -> int:
    import importlib

    from tests.faults import battery, commands
    from tests.faults.targets import Workplace

    place = Workplace(args.output.absolute() / "work")
    kinds = [importlib.import_module(f"tests.faults.{kind}") for kind in KINDS]
    cases = [case for kind in kinds for case in kind.cases(place, args.seed, args.scale)]
    cases = battery.select_cases(cases, args.only)
    if args.list:
        print("\n".join(case.name for case in cases))
        return 0
    if not cases:
        print(f"No case is called {', '.join(args.only)}; --list shows their names.", file=sys.stderr)
        return 2
    gc.disable()  # imports make a million objects that stay; looking through them takes a fifth of the time
    for name in commands.HEAVY:
        importlib.import_module(name)
    import torch

    from PADing.modeling.pixel_decoder.ops.backends import select

    torch.set_num_threads(1)
    select("cpu")  # now, because it may compile for a minute
    gc.freeze()  # each process would go through all these objects again, and copy their memory
    gc.enable()
    args.output.mkdir(parents=True, exist_ok=True)
    record = battery.Record(args.output, args.seed)
    if args.go_on:
        record.lines = battery.earlier_lines(args.output, args.seed)
        cases = [case for case in cases if case.name not in {line["case"] for line in record.lines}]
    else:
        (args.output / "results.jsonl").unlink(missing_ok=True)
        shutil.rmtree(place.folder, ignore_errors=True)  # the code may have changed since its undisturbed runs
    before = len(record.lines)
    start = time.monotonic()
    print(f"{len(cases)} cases with seed {args.seed}; results are in {args.output}", flush=True)
    until = start + args.minutes * 60 if args.minutes else float("inf")
    whole = battery.run(cases, record, place.folder, until)
    record.write_table()
    print(f"\n\n{record.table()}\n\nseed {args.seed}, {(time.monotonic() - start) / 60:.1f} minutes")
    if not whole:
        print(f"{len(cases) + before - len(record.lines)} cases were not tried: --minutes {args.minutes:g}.")
    return int(any(line["outcome"] == battery.FAILED for line in record.lines))


if __name__ == "__main__":
    sys.exit(main())
