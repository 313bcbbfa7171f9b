#!/usr/bin/env python3
"""Draw the emoji track of the mini data: scenes of emoji with the names of COCO classes, in COCO's own layout.

39 seen and 14 unseen classes of COCO's 48/17 instance protocol have emoji that show them. Class vectors are those that
the repository ships for COCO. The font Noto Color Emoji is needed and not shipped:
sudo apt-get install fonts-noto-color-emoji

    python datasets/make_emoji_coco.py                 # datasets/emoji, 2000 + 500 images of 128 x 128
    python datasets/make_emoji_coco.py --classes       # the classes with their emoji, and those left out
    python datasets/make_emoji_coco.py --font ~/NotoColorEmoji.ttf --workers 2 --output /some/folder

The same command does nothing the second time. With other arguments it needs ``--force`` to replace the data.
"""

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()  # before the imports that take seconds

import argparse
import os
import sys
from pathlib import Path

from PADing.command_line import CommandParser, count, positive, run_command
from PADing.data.emoji.classes import DISTRACTORS, EMOJI, LEFT_OUT
from PADing.data.emoji.files import SPLIT, make_emoji
from PADing.data.mini_files import MANIFEST
from PADing.data.splits import load_split
from PADing.errors import UserError
from PADing.files import read_json


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__)
    parser.add_argument("--classes", action="store_true", help="list the classes and draw nothing")
    text = "folder to write (default: emoji in $DETECTRON2_DATASETS)"
    parser.add_argument("--output", "--out", dest="out", type=Path, help=text)
    parser.add_argument("--train", type=positive, default=2000, help="training images (default: %(default)s)")
    parser.add_argument("--val", type=positive, default=500, help="validation images (default: %(default)s)")
    parser.add_argument("--seed", type=count, default=0, help="of all random choices (default: %(default)s)")
    parser.add_argument("--font", type=Path, help="NotoColorEmoji.ttf (default: where systems install it)")
    parser.add_argument(
        "--other-font", action="store_true", help="take another version of the font; metrics do not compare"
    )
    parser.add_argument("--workers", type=positive, default=1, help="processes that draw (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="replace a mini data set that has other arguments")
    return run_command(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    values = vars(args)
    if values.pop("classes"):
        _list()
        return
    values["out"] = values["out"] or Path(os.environ.get("DETECTRON2_DATASETS", "datasets")) / "emoji"
    path = make_emoji(**values)
    counts = read_json(path / MANIFEST, "Emoji data").get("counts")
    if not isinstance(counts, dict):
        raise UserError(f"{path / MANIFEST} has no counts. Draw the data again, with a new --output.")
    print(f"{path}: " + "; ".join(f"{k}: {v}" for k, v in counts.items()))


def _list() -> None:
    split = load_split(SPLIT)
    for title, names in (("seen", split.seen), ("unseen", split.unseen)):
        print(f"{len(names)} {title} classes, {sum(len(EMOJI[name]) for name in names)} emoji:")
        for name in names:
            print(f"  {name}: {' '.join(EMOJI[name])}")
    print(f"{len(DISTRACTORS)} distractors: {' '.join(DISTRACTORS)}")
    print(f"{len(LEFT_OUT)} classes left out:")
    for name, reason in LEFT_OUT.items():
        print(f"  {name}: {reason}")


if __name__ == "__main__":
    sys.exit(main())
