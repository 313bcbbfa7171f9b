#!/usr/bin/env python3
"""Draw the mini data set: a small zero-shot segmentation benchmark in COCO's own layout.

Things combine a surface and a shape ("striped disc"). They are on grounds that combine a color and a pattern ("teal
waves"). Unseen classes are new combinations of parts that all occur in seen classes, so transfer is possible. Class
embeddings are sums of part vectors, rotated, with noise: they describe a class by its parts.

    python datasets/make_mini_coco.py                       # datasets/mini, 2000 + 300 images of 128 x 128
    python datasets/make_mini_coco.py --train 200 --val 50 --size 96 --seed 7 --output /some/folder
    python datasets/make_mini_coco.py --version 2 --world test --folds 1,2    # datasets/mini2/test, frozen images

The seed decides everything. Image k is the same for every number of images. The folder's ``mini.json`` records the
arguments: the same command does nothing the second time. With other arguments it needs ``--force`` to replace the data.

Version 2 has no seed: its images, folds and class vectors are frozen (docs/minibench_v2.md).
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
from PADing.data.mini_v2.files import make_world
from PADing.data.mini_v2.worlds import FOLDS, WORLDS
from PADing.errors import UserError
from PADing.files import read_json

# Flags of one version alone.
ONLY = {1: ("size", "seed", "split", "dim", "noise"), 2: ("world", "folds", "workers")}


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__)
    parser.add_argument("--version", type=int, choices=(1, 2), default=1, help="of the data (default: %(default)s)")
    text = "folder to write (default: mini, or mini2/WORLD, in $DETECTRON2_DATASETS)"
    parser.add_argument("--output", "--out", dest="out", type=Path, help=text)
    parser.add_argument("--train", type=positive, help="training images (default: 2000)")
    parser.add_argument("--val", type=positive, help="validation images (default: 300; version 2: all)")
    parser.add_argument("--force", action="store_true", help="replace a mini data set that has other arguments")
    first = parser.add_argument_group("version 1")
    first.add_argument("--size", type=positive, help="side of an image in pixels (default: 128)")
    first.add_argument("--seed", type=count, help="seed of the images and class embeddings (default: 0)")
    first.add_argument("--split", choices=sorted(UNSEEN), help="which classes are unseen (default: compositional)")
    first.add_argument("--dim", type=positive, help="width of the class embeddings (default: 32)")
    first.add_argument("--noise", type=float, help="noise of the class embeddings (default: 0.15)")
    second = parser.add_argument_group("version 2")
    second.add_argument("--world", choices=[world.name for world in WORLDS], help="default: test")
    text = f"which folds, of 1 to {FOLDS}: 1,2 or all (default: 1)"
    second.add_argument("--folds", type=_folds, metavar="LIST", help=text)
    second.add_argument("--workers", type=positive, help="processes that draw (default: 1)")
    return run_command(_run, parser.parse_args(argv))


def _folds(text: str) -> tuple[int, ...]:
    allowed = {str(number): number for number in range(1, FOLDS + 1)}
    words = list(allowed) if text == "all" else [word.strip() for word in text.split(",")]
    if not set(words) <= set(allowed):
        raise argparse.ArgumentTypeError(f"must be `all` or numbers from 1 to {FOLDS} such as 1,2, but is {text!r}")
    return tuple(allowed[word] for word in words)


def _run(args: argparse.Namespace) -> None:
    values = {key: value for key, value in vars(args).items() if value is not None}
    version, root = values.pop("version"), Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))
    if other := [key for key in ONLY[3 - version] if key in values]:
        flags = ", ".join(f"--{key}" for key in other)
        raise UserError(
            f"Version {version} of the mini data has no {flags}. Leave it out, or name the other --version."
        )
    if version == 1:
        path = make_mini_coco(**{"out": root / "mini", **values})
    else:
        world = values.pop("world", "test")
        path = make_world(world, **{"out": root / "mini2" / world, **values})
    counts = read_json(path / MANIFEST, "Mini data set")["counts"]
    print(f"{path}: " + "; ".join(f"{k}: {v}" for k, v in counts.items()))


if __name__ == "__main__":
    sys.exit(main())
