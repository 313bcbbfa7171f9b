"""Prepares a data set on which models of other classes are evaluated, from its official download.

    python datasets/prepare_evaluation_set.py ade20k        ADEChallengeData2016/
    python datasets/prepare_evaluation_set.py context       VOCdevkit/VOC2010/
    python datasets/prepare_evaluation_set.py voc           VOCdevkit/VOC2012/
    python datasets/prepare_evaluation_set.py cityscapes    cityscapes/

It reads the folder of the set below $DETECTRON2_DATASETS (default `datasets`) and writes to the folder `prepared` in it
(`prepared_context` for context). docs/other_datasets.md says which files to download. You can interrupt it: started
again, it goes on.
"""

import logging
import sys
from pathlib import Path

from PADing.command_line import CommandParser, run_command
from PADing.data.preparation import add_workers_flag

NAMES = ("ade20k", "context", "voc", "cityscapes")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__)
    parser.add_argument("set", choices=NAMES, help="which data set")
    parser.add_argument("--images-list", type=Path, metavar="FILE", help="voc, context: the images to use, one a line")
    parser.add_argument("--labels", type=Path, metavar="FOLDER", help="context: folder of its .mat files or PNGs")
    parser.add_argument("--names", type=Path, metavar="FILE", help="context with PNGs: names of their values")
    parser.add_argument("--subset", action="store_true", help="prepare what is there, if the release has more images")
    parser.add_argument("--overwrite", action="store_true", help="make anew what an earlier run has made")
    add_workers_flag(parser)
    args = parser.parse_args(argv)
    return run_command(_run, args)


def _run(args) -> None:
    from PADing.data.evaluation_sets import SETS
    from PADing.data.evaluation_sets.items import Options
    from PADing.data.evaluation_sets.prepare import Preparation
    from PADing.data.splits import dataset_root, evaluation_split_files, load_split
    from PADing.errors import UserError

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if args.set != "context" and (given := [flag for flag in ("labels", "names") if getattr(args, flag)]):
        raise UserError(f"--{given[0]} is a flag for context. Leave it out for {args.set}.")
    if args.set not in ("context", "voc") and args.images_list:
        raise UserError(f"--images-list is a flag for voc and context. Leave it out for {args.set}.")
    root = Path(dataset_root())
    source = SETS[args.set](Options(root, args.images_list, args.labels, args.names))
    split = load_split(next(file for file in evaluation_split_files() if Path(file).stem == source.split_file))
    Preparation(source, split, root, args.subset).run(args.workers, args.overwrite)
    print(f"{source.folder}: {len(source.items)} images. Sets: {', '.join(d.name for d in split.data_sets)}.")
    print(f"Check them: python -m PADing.data.verify --split-file datasets/splits/evaluation/{split.name}.yaml --deep")
