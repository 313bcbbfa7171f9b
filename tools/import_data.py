#!/usr/bin/env python3
"""Import annotation of another format: the result is what tools/make_split.py reads.

    python tools/import_data.py annotated --format labelme --output imported --val-fraction 0.2

Formats: label-png, labelme, cvat, voc, yolo, coco; docs/import_data.md describes each. The source is never changed. A
table says what was left out and why; import_report.json in the result says the same. The last lines are the commands
that go on from there. Status 2: a mistake, or nothing could be imported.
"""

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()  # before the imports that take seconds

import argparse
import logging
import shlex
import sys

from PADing.command_line import CommandParser, as_typed, run_command
from PADing.errors import UserError, did_you_mean

logger = logging.getLogger("import_data")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__)
    parser.add_argument("source", help="folder of the annotation, or the file of a format with one file (cvat, coco)")
    parser.add_argument("--format", required=True, help="label-png, labelme, cvat, voc, yolo, coco, or a plug-in's")
    parser.add_argument("--output", required=True, help="the folder to write")
    parser.add_argument("--images-dir", help="folder of the images (default: the source's folder)")
    parser.add_argument("--names", help="class names: 1=person,2=dog, or a file; also renames: kitty=cat")
    parser.add_argument("--ignore", default="255", help="label-png: pixel values without a class, such as 0,255")
    parser.add_argument(
        "--kind", choices=("instance", "semantic"), default="instance", help="voc: objects or label PNGs"
    )
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--val-fraction", type=float, help="part of the images to validate on, whole folders at a time")
    part.add_argument("--val-list", help="file that names the images to validate on, a line each")
    parser.add_argument("--seed", type=int, default=0, help="chooses the folders of --val-fraction")
    parser.add_argument(
        "--copy-images", nargs="?", const="copy", choices=("copy", "link"), help="put the images into the output, as "
        "copies or as hard links; otherwise the split file refers to them where they are",
    )  # fmt: skip
    parser.add_argument(
        "--exif", choices=("auto", "applied", "ignored"), default="auto", help="whether the annotation tool applied "
        "the EXIF orientation of images; auto: by its size",
    )  # fmt: skip
    parser.add_argument("--unseen", default="", help="names of unseen classes for the printed command, with commas")
    parser.add_argument("--overwrite", action="store_true", help="replace the result of an earlier import")
    parser.add_argument("--follow-links", action="store_true", help="read symbolic links that lead out of the source")
    parser.add_argument("--keep-case", action="store_true", help="Dog and dog are two classes")
    parser.add_argument("--plugins", nargs="+", default=(), help="modules that add formats")
    return run_command(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    # Imported here, because they import PyTorch.
    from PADing.data.importers.run import ImportOptions, import_data, next_commands
    from PADing.plugins import import_plugins

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)  # after the imports, which log
    import_plugins(args.plugins)
    try:
        ignore = tuple(int(value) for value in args.ignore.split(","))
    except ValueError:
        raise UserError(f"--ignore {args.ignore} must be numbers with commas between them, such as 0,255.") from None
    options = {
        key: getattr(args, key) for key in ImportOptions.__dataclass_fields__ if key != "ignore" and hasattr(args, key)
    }
    result = import_data(args.source, args.format, args.output, ImportOptions(**options, ignore=ignore))
    logger.info("%s", result.report.table())
    logger.info("\n%s: %d classes: %s", result.output, len(result.classes), ", ".join(result.classes[:20]))
    unseen = [name.strip() for name in args.unseen.split(",") if name.strip()]
    for name in unseen:
        if name not in result.classes:
            logger.warning("--unseen: %r is not among the classes%s.", name, did_you_mean(name, result.classes))
    if "val" not in result.roles:
        logger.info("All images are for training. --val-fraction or --val-list sets images aside for validation.")
    if not unseen:
        logger.info("Put the names of the unseen classes in place of UNSEEN.")
    logger.info("\n# next\n%s", as_typed("\n".join(map(shlex.join, next_commands(result, unseen)))))


if __name__ == "__main__":
    sys.exit(main())
