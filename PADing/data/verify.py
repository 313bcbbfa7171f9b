"""Reports which data are present, what is missing or wrong, and which configs can run.

    python -m PADing.data.verify                             # the shipped data sets and configs/
    python -m PADing.data.verify --split-file my_split.yaml --config my_config.yaml
    python -m PADing.data.verify --deep                      # read everything as training would

Without ``--deep`` it checks folders, file names and the first image of each data set, which takes seconds. With
``--deep`` the loaders and mappers of training load every annotation file and read every image, so training accepts
what passes. That takes long on all of COCO; ``--images 100`` reads 100 images of each data set.
Status 0: all is present; 1: something is missing or wrong; 2: a split file or an argument is wrong.
"""

import argparse
import logging
import os
import sys

from PADing.command_line import CommandParser, count, positive, quiet_ctrl_c, run_command


def main(argv: list[str] | None = None, out=None) -> int:
    """Print the report; returns the exit status (see the module)."""
    parser = CommandParser(__doc__, prog="python -m PADing.data.verify")
    parser.add_argument("--split-file", nargs="+", default=[], help="check your own data sets instead")
    parser.add_argument("--config", nargs="+", help="configs to check (default: all below configs/)")
    parser.add_argument("--deep", action="store_true", help="also read annotation and images, as training would")
    help_text = "images of each data set that --deep reads; 0: all (default)"
    parser.add_argument("--images", "--pictures", type=count, default=0, help=help_text)
    parser.add_argument("--workers", type=positive, default=min(os.cpu_count() or 1, 8), help="default: %(default)s")
    args = parser.parse_args(argv)
    loading = logging.getLogger("PADing.data")
    level = loading.level
    loading.setLevel(logging.ERROR)  # the report says the same
    try:
        return run_command(_report, args, out or sys.stdout)
    finally:
        loading.setLevel(level)


def _report(args: argparse.Namespace, out) -> int:
    from PADing.data.verify_report import print_report  # imports PyTorch

    return int(print_report(args, out))


if __name__ == "__main__":
    quiet_ctrl_c()
    sys.exit(main())
