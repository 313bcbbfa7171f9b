#!/usr/bin/env python3
"""Draw the mini data set: a small zero-shot segmentation benchmark in COCO's own layout.

Things are compositions ``surface x shape`` ("striped disc") on grounds that are compositions ``colour x pattern``
("teal waves"). Unseen classes are held-out compositions whose parts all occur in seen classes, so transfer is possible
but not free. Class embeddings are sums of part vectors, rotated, with noise: they describe the parts, not the identity.

    python datasets/make_mini_coco.py                       # datasets/mini, 2000 + 300 images of 128 x 128
    python datasets/make_mini_coco.py --train 200 --val 50 --size 96 --seed 7 --output /some/folder

Everything is drawn from one seed, image by image, so image k is the same whatever the number of images. The folder's
``mini.json`` records the arguments: the same command again does nothing, and with other arguments it refuses to replace
the data, unless ``--force`` is given.
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
    """Parse arguments and draw; returns the exit status."""
    parser = CommandParser(__doc__)
    root = Path(os.environ.get("DETECTRON2_DATASETS", "datasets")) / "mini"
    parser.add_argument("--output", "--out", dest="out", default=root, type=Path, help="folder to write")
    parser.add_argument("--train", type=positive, default=2000, help="training images")
    parser.add_argument("--val", type=positive, default=300, help="validation images")
    parser.add_argument("--size", type=positive, default=128, help="side of an image in pixels")
    parser.add_argument("--seed", type=count, default=0, help="of everything that is drawn")
    parser.add_argument("--split", choices=sorted(UNSEEN), default="compositional", help="which classes are unseen")
    parser.add_argument("--dim", type=positive, default=32, help="width of the class embeddings")
    parser.add_argument("--noise", type=float, default=0.15, help="their noise")
    parser.add_argument("--force", action="store_true", help="replace a mini data set of other arguments")
    return run_command(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    path = make_mini_coco(**vars(args))
    counts = read_json(path / MANIFEST, "Mini data set")["counts"]
    print(f"{path}: " + "; ".join(f"{k}: {v}" for k, v in counts.items()))


if __name__ == "__main__":
    sys.exit(main())
