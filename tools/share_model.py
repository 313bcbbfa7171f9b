#!/usr/bin/env python3
"""Make a folder to share of a finished training, and upload it to the Hugging Face Hub.

    python tools/share_model.py --training output/quickstart/pading --output shared/mini_pading --license mit
    python tools/share_model.py --training ... --output ... --license mit --push OWNER/NAME --private
    python tools/share_model.py --output shared/mini_pading --push OWNER/NAME      # a folder made before

The folder has weights (safetensors), config, classes, class embeddings, metrics and a model card, and no path of this
machine. It is loaded with PADing.inference.from_pretrained, or as --config-file of any command.
"""

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()  # before the imports that take seconds

import argparse
import re
import sys
from pathlib import Path

from PADing.command_line import CommandParser, add_opts_flag, run_command
from PADing.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__)
    parser.add_argument("--training", type=Path, metavar="FOLDER", help="OUTPUT_DIR of a finished training")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder to make, or made before")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="checkpoint (default: its model_final.pth)")
    parser.add_argument("--license", default="", metavar="NAME", help="of the weights, such as mit or cc-by-4.0")
    parser.add_argument("--description", default="", metavar="TEXT", help="a paragraph for the model card")
    parser.add_argument("--without-metrics", action="store_true", help="the training has no results.json")
    parser.add_argument("--overwrite", action="store_true", help="replace the shared model of --output, and of --push")
    parser.add_argument("--push", default="", metavar="OWNER/NAME", help="upload to the Hugging Face Hub")
    parser.add_argument("--private", action="store_true", help="make a new repository of --push private")
    add_opts_flag(parser)
    return run_command(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    # Imported here, because they import PyTorch.
    from detectron2.utils.logger import setup_logger

    from PADing.sharing.export import share_model
    from PADing.sharing.hub import push_folder
    from PADing.sharing.layout import CARD, check_folder

    if __name__ == "__main__":
        for name in ("fvcore", "PADing"):
            setup_logger(name=name)
    _check(args)
    if args.training:
        share_model(
            args.training, args.output, args.weights, args.more_opts, args.license, args.description, args.push,
            args.without_metrics, args.overwrite,
        )  # fmt: skip
        print(f"Wrote {args.output}. Read {args.output / CARD} and complete it.")
    else:
        check_folder(args.output)
    if args.push:
        print(f"Uploaded: {push_folder(args.output, args.push, args.private, args.overwrite)}")


def _check(args: argparse.Namespace) -> None:
    """UserError for flags that do not fit together."""
    from PADing.sharing.hub import Reference

    if args.push and Reference.of(args.push).revision:
        raise UserError(f"--push {args.push}: leave out the revision. An upload is a new commit of the main branch.")
    if args.private and not args.push:
        raise UserError("--private belongs to --push OWNER/NAME.")
    if args.license and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,40}", args.license):
        raise UserError(f"--license is {args.license!r}. Write its short name, such as mit, apache-2.0 or cc-by-4.0.")
    if args.training is None:
        if not args.push:
            raise UserError("--training is missing. Name the OUTPUT_DIR of a finished training.")
        own = ("weights", "license", "description", "without_metrics", "more_opts")
        given = [flag for flag in own if vars(args)[flag]]
        if given:
            flags = ", ".join("--" + flag.replace("more_", "").replace("_", "-") for flag in given)
            raise UserError(f"{flags} belong to --training. Without it, the folder of --output is uploaded as it is.")


if __name__ == "__main__":
    sys.exit(main())
