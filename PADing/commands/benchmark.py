"""Measures time and memory of all implementations of this operator in one run.

    python -m PADing.modeling.pixel_decoder.ops.benchmark msda [--output FILE] [--device cpu|cuda] [--case NAME]

``msda``: multi-scale deformable attention with every available backend and every installed peer (transformers, mmcv,
deformops; on a GPU also the classic kernel with one thread per output channel), forward alone (``fwd``) and with
backward (``fwdbwd``). Backends take turns, so that other load on the machine affects all of them. ``ratio_to_pytorch``
is the speedup over this project's ``grid_sample`` path in the same run. ``peak_mb`` is the largest memory in use during
a call, minus that before it.
"""

import argparse
import logging
import sys
from pathlib import Path

from PADing.command_line import CommandParser, positive, run_command

# name -> batch, levels (h, w) finest first, queries (None: every position of every level)
CASES: dict[str, tuple[int, list[tuple[int, int]], int | None]] = {
    "800x1066": (1, [(100, 134), (50, 67), (25, 34)], None),
    "512x512": (1, [(64, 64), (32, 32), (16, 16)], None),
    "1024x1024_batch2": (2, [(128, 128), (64, 64), (32, 32)], None),
    "300_queries": (1, [(100, 134), (50, 67), (25, 34)], 300),
}
DTYPE_NAMES = ("float32", "float64", "bfloat16", "float16")
KINDS = ("cpu", "cuda")


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = CommandParser(__doc__)
    msda = parser.add_subparsers(required=True).add_parser("msda", help="multi-scale deformable attention")
    msda.add_argument("--output", "--json", type=Path, metavar="FILE", help="also write the rows here, as JSON")
    msda.add_argument("--device", choices=KINDS, help="default: cuda if there is one")
    msda.add_argument("--threads", type=positive, help="CPU threads (default: PyTorch's)")
    msda.add_argument("--case", action="append", choices=CASES, help="may be repeated; default: the encoder's sizes")
    msda.add_argument("--dtype", action="append", choices=DTYPE_NAMES, help="may be repeated; default: 32 and 16 bits")
    msda.add_argument("--rounds", type=positive, default=20, help="measurements of each contender")
    msda.add_argument("--seconds", type=float, default=30.0, help="stop a table after this long (at least 3 rounds)")
    return run_command(_measure, parser.parse_args(argv))


def _measure(args: argparse.Namespace) -> None:
    from PADing.modeling.pixel_decoder.ops.benchmark import benchmark_msda  # imports PyTorch

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)  # after the imports, which log
    benchmark_msda(args)
