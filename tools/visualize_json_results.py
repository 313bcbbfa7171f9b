#!/usr/bin/env python3
"""Look at a file of instance results: input | ground truth | detections, unseen classes outlined in magenta.

    python tools/visualize_json_results.py --input output/inference/coco_instances_results.json \\
        --dataset coco_zsi_48_17_val --output drawings --conf-threshold 0.5
"""

import argparse
import sys
from pathlib import Path

from detectron2.data import DatasetCatalog

import PADing  # noqa: F401  registers the shipped data sets
from PADing.command_line import count, fraction, run_command
from PADing.data.registration import register_split_files
from PADing.errors import UserError, did_you_mean
from PADing.visualization.comparison import draw_detections


def main(args: argparse.Namespace) -> None:
    """Draw what the command line says."""
    register_split_files(args.split_file)
    known = DatasetCatalog.list()
    if args.dataset not in known:
        raise UserError(
            f"Data set {args.dataset!r} is not registered{did_you_mean(args.dataset, known)}. Register your own with "
            "--split-file."
        )
    written = draw_detections(args.input, args.dataset, args.output, args.conf_threshold, args.number)
    print(f"{len(written)} drawings: {args.output}")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, metavar="JSON", help="file in COCO's result format")
    parser.add_argument("--output", type=Path, required=True, help="folder for the drawings")
    parser.add_argument("--dataset", required=True, help="name of the data set that was evaluated")
    parser.add_argument(
        "--conf-threshold", type=fraction, help="least score to show (default: half of the image's best score)"
    )
    parser.add_argument("--number", type=count, default=0, help="images to draw (0: all)")
    parser.add_argument("--split-file", nargs="+", default=[], metavar="FILE", help="split files of your own data")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main, make_parser().parse_args()))
