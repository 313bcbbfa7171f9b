"""Feature folders: run a frozen segmenter once, then train and evaluate second stages without images.

    python tools/features.py write --part train --config-file CONFIG --output features/train MODEL.WEIGHTS WEIGHTS
    python tools/features.py write --part val --config-file CONFIG --output features/val MODEL.WEIGHTS WEIGHTS
    python tools/features.py train --features features/train --val-features features/val --config-file CONFIG ...
    python tools/features.py eval --val-features features/val --config-file CONFIG MODEL.WEIGHTS WEIGHTS
    python tools/features.py info features/train
    python tools/features.py verify features/train

CONFIG is that of a second stage, such as PADing. A stopped `write` goes on if you run the same command again. `train`
takes the flags of train_net.py and makes the same checkpoints.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from PADing.command_line import CommandParser, add_config_options, count, positive, run_command
from PADing.commands.train import training_parser
from PADing.errors import UserError

PARTS = ("train", "val")  # as in PADing.features.header, which the parser does not import
DTYPES, MASKS = ("float16", "float32"), ("float16", "bits", "float32")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    args = parser().parse_args(argv)
    return run_command(args.function, args)


def parser() -> argparse.ArgumentParser:
    """The parser of all sub-commands."""
    top = CommandParser(__doc__)
    commands = top.add_subparsers(required=True, metavar="write|train|eval|info|verify")
    _add_write(commands.add_parser("write", help="run the frozen segmenter on a data set and keep its outputs"))
    _add_training(commands.add_parser("train", help="train a second stage on features"), trains=True)
    _add_training(commands.add_parser("eval", help="evaluate a second stage on features"), trains=False)
    for name, help_text, show in (
        ("info", "say what a feature folder holds", _info),
        ("verify", "check every checksum and value of feature folders", _verify),
    ):
        command = commands.add_parser(name, help=help_text)
        command.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="feature folders")
        command.set_defaults(function=show)
    return top


def _add_write(command: argparse.ArgumentParser) -> None:
    command.add_argument("--part", choices=PARTS, required=True, help="train: DATASETS.TRAIN; val: DATASETS.TEST")
    command.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="the folder to make")
    passes = "passes over the training set, each with another augmentation"
    command.add_argument("--passes", type=positive, default=1, metavar="N", help=passes)
    text = "store so many queries without a class of each training image, at random; 0: all"
    command.add_argument("--unmatched", type=count, default=0, metavar="N", help=text)
    command.add_argument("--dtype", choices=DTYPES, default="float16", help="of features and class logits")
    command.add_argument("--masks", choices=MASKS, default="float16", help="of the part val; bits: one bit a cell")
    command.add_argument("--overwrite", action="store_true", help="replace the features of another config")
    add_config_options(command)
    command.set_defaults(function=_write)


def _add_training(command: argparse.ArgumentParser, trains: bool) -> None:
    which = "of the part val" + (" (none: nothing is evaluated)" if trains else "")
    command.add_argument("--val-features", required=not trains, type=Path, metavar="FOLDER", help=which)
    if trains:
        command.add_argument("--features", required=True, type=Path, metavar="FOLDER", help="of the part train")
        command.add_argument("--resume", action="store_true", help="go on from the last checkpoint in OUTPUT_DIR")
        command.add_argument("--overwrite", action="store_true", help="replace the training that OUTPUT_DIR holds")
    text = "repeat bit by bit with the same SEED, threads and machine (DETERMINISTIC True)"
    command.add_argument("--deterministic", action="store_true", help=text)
    command.add_argument("--no-progress-bar", action="store_true", help="no progress bar on the terminal; lines alone")
    add_config_options(command)
    command.set_defaults(function=_train if trains else _eval)


def _write(args: argparse.Namespace) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from PADing.engine.start_check import BUILDING, checked_config
    from PADing.features.writing import write_features

    if args.num_gpus is not None and args.num_gpus > 1:
        raise UserError("`features write` runs on one GPU. Set --num-gpus 1, or 0 for the CPU.")
    data = {"train": {"train", "train data"}, "val": {"test", "test data"}}[args.part]
    cfg = checked_config(args, BUILDING | {"weights"} | data)
    options = {key: getattr(args, key) for key in ("passes", "unmatched", "dtype", "masks", "overwrite")}
    header = write_features(cfg, args.output, args.part, **options)
    print(f"{args.output}: {header.records:,} records in {header.shards} shards are complete.")


def _train(args: argparse.Namespace) -> None:
    from PADing.engine.start_check import TRAINING

    lacks = {"train data"} if args.val_features else {"train data", "test data"}
    _start(args, False, TRAINING - lacks, args.features, args.val_features)


def _eval(args: argparse.Namespace) -> None:
    from PADing.engine.start_check import EVALUATION

    _start(args, True, EVALUATION, None, args.val_features)


def _start(
    args: argparse.Namespace, eval_only: bool, needs: frozenset[str], train: Path | None, val: Path | None
) -> None:
    from PADing.engine.main import start
    from PADing.features.training import feature_trainer

    if args.num_gpus is not None and args.num_gpus > 1:
        raise UserError(f"`features` runs in one process, but --num-gpus is {args.num_gpus}. Set 1 or 0.")
    # The rest of the flags of train_net.py have their defaults.
    flags = {**vars(training_parser().parse_args([])), "dist_url": "auto", "recipes": None, "more_opts": []}
    own = {"eval_only": eval_only, "needs": needs, "trainer": feature_trainer(train, val)}
    start(argparse.Namespace(**{**flags, **vars(args), **own}))


def _info(args: argparse.Namespace) -> None:
    from PADing.features.checking import describe

    for number, folder in enumerate(args.folders):
        print(("\n" if number else "") + f"{folder}\n{describe(folder)}")


def _verify(args: argparse.Namespace) -> None:
    from PADing.features.checking import verify

    for folder in args.folders:
        print(verify(folder))
