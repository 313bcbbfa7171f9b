#!/usr/bin/env python3
"""Draw the mini data set: a small zero-shot segmentation benchmark in COCO's own layout.

Things combine a surface and a shape ("striped disc"). They are on grounds that combine a color and a pattern ("teal
waves"). Unseen classes are new combinations of parts that all occur in seen classes, so transfer is possible. Class
embeddings are sums of part vectors, rotated, with noise: they describe a class by its parts.

    python datasets/make_mini_coco.py                       # datasets/mini, 2000 + 300 images of 128 x 128
    python datasets/make_mini_coco.py --train 200 --val 50 --size 96 --seed 7 --output /some/folder

The seed decides everything. Image k is the same for every number of images. The folder's ``mini.json`` records the
arguments: the same command does nothing the second time. With other arguments it needs ``--force`` to replace the data.
"""

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()  # before the imports that take seconds

import argparse
import os
import sys
from pathlib import Path

from PADing.command_line import CommandParser, count, positive, run_command
from PADing.data.mini import UNSEEN
from PADing.data.mini_files import MANIFEST, make_mini_coco
from PADing.files import read_json


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__)
    root = Path(os.environ.get("DETECTRON2_DATASETS", "datasets")) / "mini"
    parser.add_argument("--output", "--out", dest="out", default=root, type=Path, help="folder to write")
    parser.add_argument("--train", type=positive, default=2000, help="training images")
    parser.add_argument("--val", type=positive, default=300, help="validation images")
    parser.add_argument("--size", type=positive, default=128, help="side of an image in pixels")
    parser.add_argument("--seed", type=count, default=0, help="seed of the images and class embeddings")
    parser.add_argument("--split", choices=sorted(UNSEEN), default="compositional", help="which classes are unseen")
    parser.add_argument("--dim", type=positive, default=32, help="width of the class embeddings")
    parser.add_argument("--noise", type=float, default=0.15, help="noise of the class embeddings")
    parser.add_argument("--force", action="store_true", help="replace a mini data set that has other arguments")
    return run_command(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    path = make_mini_coco(**vars(args))
    counts = read_json(path / MANIFEST, "Mini data set")["counts"]
    print(f"{path}: " + "; ".join(f"{k}: {v}" for k, v in counts.items()))


if __name__ == "__main__":
    sys.exit(main())
