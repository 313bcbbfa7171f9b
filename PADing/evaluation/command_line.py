"""The command lines of tools/gzsi_coco_eval.py and tools/zsi_coco_eval.py."""

import argparse
import logging
import sys

from PADing.command_line import CommandParser, positive, run_command
from PADing.data.splits import load_split
from PADing.evaluation.coco_metrics import coco_eval_revise

__all__ = ["main"]


def main(
    description: str, generalized: bool, num_seen_classes: int | None = None, argv: list[str] | None = None
) -> int:
    """Evaluate a result file and log the metrics to standard output; returns the exit status.

    Args:
        description: what ``--help`` says first.
        generalized: offer the options that split the metrics into seen and unseen classes.
        num_seen_classes: default of ``--num-seen-classes``.
        argv: arguments; by default those of the process.
    """
    args = _parser(description, generalized, num_seen_classes).parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    return run_command(_evaluate, args, generalized)


def _evaluate(args: argparse.Namespace, generalized: bool) -> None:
    common = (args.result, args.types, args.ann, args.max_dets, args.classwise)
    if not generalized:
        coco_eval_revise(*common)
        return
    unseen = None if args.unseen is None else _unseen_names(args.unseen)
    coco_eval_revise(*common, args.gzsi or unseen is not None, args.num_seen_classes, unseen=unseen)


def _parser(description: str, generalized: bool, num_seen_classes: int | None) -> CommandParser:
    parser = CommandParser(description)
    parser.add_argument("result", help="detections in COCO's result format (.json)")
    parser.add_argument("--ann", required=True, help="ground truth in COCO's instance format (.json)")
    types = ("segm", "bbox", "proposal", "proposal_fast")
    parser.add_argument("--types", nargs="+", choices=types, default=["bbox"], help="default: bbox")
    help_text = "detections per image for proposal and proposal_fast (default: 100 300 1000); the others use 100"
    parser.add_argument("--max-dets", type=positive, nargs="+", default=[100, 300, 1000], help=help_text)
    parser.add_argument("--classwise", action="store_true", help="also print a table per class")
    if generalized:
        parser.add_argument("--gzsi", action="store_true", help="split the metrics into seen and unseen classes")
        help_text = "the first so many categories of --ann, in its order, are seen"
        parser.add_argument("--num-seen-classes", type=positive, default=num_seen_classes, help=help_text)
        help_text = "the unseen classes: names, or one split file; instead of --num-seen-classes"
        parser.add_argument("--unseen", nargs="+", metavar="NAME", help=help_text)
    return parser


def _unseen_names(values: list[str]) -> list[str]:
    if len(values) == 1 and values[0].endswith((".yaml", ".yml")):
        split = load_split(values[0])
        things = {category.name for category in split.categories if category.isthing}
        return [name for name in split.unseen if name in things]
    return values
