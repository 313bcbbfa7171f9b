"""Tries in minutes all that needs a GPU, and writes what it measured to gpu_check.json and gpu_check.md.

    python tools/gpu_check.py
    python tools/gpu_check.py --wheels wheels --minutes 8 --output output/gpu_check

It builds the MSDeformAttn kernels, compares them with PyTorch in all dtypes, times them beside other implementations,
trains both methods in float32, float16, bfloat16 and with torch.compile beside the same training on the CPU, measures
the full-size networks, and trains and evaluates the quickstart's model. Without a GPU it runs the same steps at a tiny
size on the CPU, which tests this command and says nothing about a GPU.
"""

import argparse
import sys
from pathlib import Path

from PADing.command_line import CommandParser, run_command

STEPS = ("build", "parity", "sanitizer", "operator", "pretraining", "PADing", "D2Zero", "full", "nccl", "quickstart")


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status: 1 if a step failed."""
    parser = CommandParser(__doc__, prog=None if argv is None else "gpu_check.py")
    parser.add_argument("--output", type=Path, default=Path("output/gpu_check"), metavar="FOLDER", help="for all files")
    parser.add_argument("--minutes", type=_minutes, default=8.0, help="stop after this time, whatever is left")
    parser.add_argument(
        "--steps",
        nargs="+",
        choices=STEPS,
        default=list(STEPS),
        metavar="STEP",
        help=f"{', '.join(STEPS)} (default: all)",
    )
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="install missing packages from wheels in it")
    parser.add_argument("--overwrite", action="store_true", help="delete the earlier check in --output")
    parser.add_argument("--cpu", action="store_true", help="as without a GPU")
    return run_command(_check, parser.parse_args(argv))


def _minutes(text: str) -> float:
    try:
        if 0 < (number := float(text)) < 24 * 60:
            return number
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must be a number of minutes above 0, but is {text!r}")


def _check(args: argparse.Namespace) -> bool:
    from PADing.gpu_check.run import run_all

    return run_all(args.output, args.steps, 60 * args.minutes, args.wheels, args.cpu, args.overwrite)


if __name__ == "__main__":
    sys.exit(main())
