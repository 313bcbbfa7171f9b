"""The command of tools/gzsi_coco_eval.py and tools/zsi_coco_eval.py: metrics of a COCO result file."""

import argparse
import logging
import sys

from PADing.command_line import CommandParser, positive, run_command

TYPES = ("segm", "bbox", "proposal", "proposal_fast")


def main(description: str | None, generalized: bool, argv: list[str] | None = None) -> int:
    """Evaluate the result file of a command line and print the metrics; returns the exit status.

    Args:
        description: for ``--help``.
        generalized: add the flags that split the metrics into seen and unseen classes.
        argv: the flags; None: those of the command line.
    """
    parser = CommandParser(description)
    parser.add_argument("result", help="detections in COCO's result format (.json)")
    parser.add_argument("--ann", required=True, help="ground truth in COCO's instance format (.json)")
    parser.add_argument("--types", nargs="+", choices=TYPES, default=["bbox"], help="default: bbox")
    help_text = "detections per image for proposal and proposal_fast (default: 100 300 1000); the others use 100"
    parser.add_argument("--max-dets", type=positive, nargs="+", default=[100, 300, 1000], help=help_text)
    parser.add_argument("--classwise", action="store_true", help="also print a table per class")
    parser.set_defaults(gzsi=False, num_seen_classes=None, unseen=None)
    if generalized:
        parser.add_argument("--gzsi", action="store_true", help="split the metrics into seen and unseen classes")
        help_text = "the number of seen classes, which come first in the categories of --ann"
        parser.add_argument("--num-seen-classes", type=positive, default=48, help=help_text)
        help_text = "the unseen classes: names, or one split file; replaces --num-seen-classes"
        parser.add_argument("--unseen", nargs="+", metavar="NAME", help=help_text)
    return run_command(_evaluate, parser.parse_args(argv))


def _evaluate(args: argparse.Namespace) -> None:
    from PADing.evaluation.result_files import evaluate_file  # imports PyTorch

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    evaluate_file(args)
