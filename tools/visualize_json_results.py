#!/usr/bin/env python3
"""Draw a file of instance results: input | ground truth | detections. Unseen classes have a magenta outline.

    python tools/visualize_json_results.py --input output/inference/coco_instances_results.json \\
        --dataset coco_zsi_48_17_val --output drawings --conf-threshold 0.5
"""

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()  # before the imports that take seconds

import argparse
import sys
from pathlib import Path

from PADing.command_line import CommandParser, count, fraction, run_command
from PADing.errors import UserError, did_you_mean


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__)
    parser.add_argument("--input", type=Path, required=True, metavar="JSON", help="file in COCO's result format")
    parser.add_argument("--output", type=Path, required=True, help="folder for the drawings")
    parser.add_argument("--dataset", required=True, help="name of the data set that was evaluated")
    least = "least score to show (default: half of the image's best score)"
    parser.add_argument("--conf-threshold", type=fraction, help=least)
    parser.add_argument("--number", type=count, default=0, help="images to draw; 0: all")
    parser.add_argument("--split-file", nargs="+", default=[], metavar="FILE", help="split files of your own data")
    parser.add_argument("--plugins", nargs="+", default=[], metavar="NAME", help="modules that register your own data")
    return run_command(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    # Imported here, because they import PyTorch.
    from detectron2.data import DatasetCatalog

    from PADing.data.registration import register_split_files
    from PADing.plugins import import_plugins
    from PADing.visualization.comparison import draw_detections

    import_plugins(args.plugins)
    register_split_files(args.split_file)
    known = DatasetCatalog.list()
    if args.dataset not in known:
        raise UserError(
            f"Data set {args.dataset!r} is not registered{did_you_mean(args.dataset, known)}. Register your own with "
            "--split-file or --plugins."
        )
    written = draw_detections(args.input, args.dataset, args.output, args.conf_threshold, args.number)
    print(f"{len(written)} drawings: {args.output}")


if __name__ == "__main__":
    sys.exit(main())
