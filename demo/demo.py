#!/usr/bin/env python3
"""Segment images, a video or the frames of a camera; unseen classes have a magenta outline.

    python demo/demo.py                              # new drawn images, with the trained mini model of the package
    python demo/demo.py --input drawing.png --output drawn.png
    python demo/demo.py --config-file configs/panoptic-segmentation/PADing.yaml \\
        --input street.jpg "holiday/*.jpg" --output drawn --opts MODEL.WEIGHTS PADing_panoptic/model_final.pth
    python demo/demo.py --config-file ... --video-input street.mp4 --output drawn.mp4 --opts MODEL.WEIGHTS ...
    python demo/demo.py --config-file ... --webcam --opts MODEL.WEIGHTS ...

Classes of your own: --vocabulary "zebra; traffic light, signal; stuff: grass" (docs/vocabulary.md).

Works for every architecture and task: it draws what the model returns (panoptic, else instances, else semantic).
Without --output the drawings are shown in a window: any key shows the next one, escape or q ends. Unreadable images are
skipped and listed, and the exit status is then 2.

Without --config-file the mini model of the package is used. It knows drawn shapes only. Without any input, too, new
images are drawn for it, segmented, and written beside their ground truth to --output (output/demo).
"""

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()  # before the imports that take seconds

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PADing.command_line import CommandParser, add_config_options, count, fraction, positive, run_command
from PADing.commands.vocabulary import add_vocabulary_options, apply_vocabulary
from PADing.errors import UserError

# What imports PyTorch is imported in the functions.
if TYPE_CHECKING:
    import numpy as np

    from PADing.inference import Predictor
    from PADing.visualization.screen import Window
    from PADing.visualization.video import VideoSource

PACKAGED, EXAMPLES = "mini", Path("output", "demo")
NOTE = (
    "This is the mini model of the package. It knows drawn shapes only, so its result for a photograph means nothing. "
    "Name a model of your own with --config-file."
)


def draw_images(
    predictor: "Predictor", paths: list[Path], drawings: list[Path], window: "Window | None", threshold: float | None
) -> None:
    """Segment and draw each image, into ``drawings`` or the window; UserError at the end if images were skipped.

    ``threshold`` is the least score of drawn instances; None: half of the image's best score.
    """
    import torch

    from PADing.visualization import ImageDrawer, read_rgb, write_rgb

    drawer, failed = ImageDrawer(predictor.metadata, threshold), 0
    for path, drawing in zip(paths, drawings, strict=True):
        try:
            image = read_rgb(path)
            start = time.perf_counter()
            seg = drawer.read(predictor(image))
            seconds = time.perf_counter() - start
            drawn = drawer.draw(image, seg)
        except (UserError, MemoryError, torch.OutOfMemoryError) as error:
            failed += 1
            what = str(error) if isinstance(error, UserError) else f"Image {path} does not fit into memory: {error}."
            print(f"skipped: {what}", file=sys.stderr, flush=True)
            continue
        where = "" if window is not None else f" -> {drawing}"
        if window is None:
            write_rgb(drawing, drawn)
        print(f"{path}: {drawer.describe(seg)} ({seconds:.2f} s){where}", flush=True)
        if window is not None and not window.show(drawn):
            break
    if failed:
        raise UserError(f"{failed} of {len(paths)} images were skipped; they are listed above.")


def draw_video(
    predictor: "Predictor",
    source: "VideoSource",
    threshold: float | None,
    deliver: "Callable[[np.ndarray], bool | None]",
) -> None:
    """Segment and draw each frame of a video or camera, until ``deliver`` returns False."""
    from tqdm import tqdm

    from PADing.visualization import ImageDrawer

    drawer = ImageDrawer(predictor.metadata, threshold, enlarge=False)
    for frame in tqdm(source, total=source.length, desc="drawing", unit="frame", mininterval=1):
        if deliver(drawer.draw_output(frame, predictor(frame))) is False:
            break


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__)
    add_config_options(parser, without_config="the mini model of the package")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--input", nargs="+", metavar="IMAGE", help='images, folders, or patterns like "dir/*.jpg"')
    what.add_argument("--video-input", metavar="FILE", help="a video file")
    what.add_argument("--webcam", action="store_true", help="the first camera")
    parser.add_argument(
        "--output", type=Path, help="folder for the drawings, or a file for one drawing (default: show a window)"
    )
    least = (
        "least score of drawn segments, 0 to 1 (default: half of the image's best score for instances; the config's "
        "threshold for panoptic results)"
    )
    parser.add_argument("--confidence-threshold", type=fraction, metavar="SCORE", help=least)
    add_vocabulary_options(parser)
    parser.add_argument("--number", type=positive, metavar="N", help="drawn images, without any input (default: 6)")
    parser.add_argument("--seed", type=count, metavar="N", help="of the drawn images (default: 0)")
    return run_command(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    from detectron2.utils.logger import setup_logger

    from PADing.sharing.places import is_packaged
    from PADing.visualization.image_files import find_images, output_paths
    from PADing.visualization.screen import Window
    from PADing.visualization.video import VideoSource, VideoWriter

    if __name__ == "__main__":
        for name in ("fvcore", "PADing"):
            setup_logger(name=name)
    # Check paths before a model is built and loaded.
    if not args.config_file:
        if any(word.partition("=")[0] == "MODEL.WEIGHTS" for word in [*args.opts, *args.more_opts]):
            raise UserError("MODEL.WEIGHTS needs the config that its model was trained with: --config-file FILE.")
        args.config_file = PACKAGED
    packaged = is_packaged(args.config_file)
    if not (args.input or args.video_input or args.webcam):
        _draw_examples(args, packaged)
        return
    if args.number is not None or args.seed is not None:
        raise UserError("--number and --seed are for drawn images, which need no input. Leave out one or the other.")
    window = sink = None
    drawings = paths = find_images(args.input or ())
    if args.output is None:
        instead = "Record a video and use --video-input" if args.webcam else "Name a file or folder with --output"
        window = Window("segmentation", f"{instead} instead.")
    elif args.webcam:
        raise UserError("--webcam shows a window and writes no file: leave out --output.")
    elif args.input:
        drawings = output_paths(paths, args.output)
    source = None if args.input else VideoSource(0 if args.webcam else args.video_input)
    if source is not None and window is None:
        is_file = args.output.suffix and not args.output.is_dir()
        path = args.output if is_file else args.output / f"{Path(args.video_input).stem}.mp4"
        if path.resolve() == Path(args.video_input).resolve():
            raise UserError(f"--output would replace the video {path} by its drawing. Name another file.")
        sink = VideoWriter(path, source.rate)
    predictor = _predictor(args)
    if packaged:
        print(NOTE, file=sys.stderr)
    threshold = args.confidence_threshold
    if source is None:
        draw_images(predictor, paths, drawings, window, threshold)
    elif sink is not None:
        with sink:
            draw_video(predictor, source, threshold, sink.write)
        print(f"written: {sink.path}")
    elif window is not None:
        show = window.show
        draw_video(predictor, source, threshold, lambda drawn: show(drawn, wait=1))


def _predictor(args: argparse.Namespace) -> "Predictor":
    from PADing.engine.start_check import PREDICTION, checked_config
    from PADing.inference import Predictor

    if args.confidence_threshold is not None:
        args.opts = ["MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD", str(args.confidence_threshold), *args.opts]
    predictor = Predictor(checked_config(args, PREDICTION), one_result=True)
    apply_vocabulary(predictor, args)
    return predictor


def _draw_examples(args: argparse.Namespace, packaged: bool) -> None:
    """Segment new drawn images with the model of the package."""
    from PADing.modeling.pixel_decoder.ops.backends import ENVIRONMENT, available_backends
    from PADing.visualization.examples import OVERVIEW, check_folder, draw_examples

    if not packaged:
        raise UserError(
            "Nothing to segment is named. Name --input IMAGE, --video-input FILE, or --webcam. Or leave out "
            "--config-file: the mini model of the package segments drawn images."
        )
    output = args.output or EXAMPLES
    check_folder(output)
    if available_backends().get("cpu") != "ready":
        # A few small images are done long before a kernel is compiled.
        os.environ.setdefault(ENVIRONMENT, "pytorch")
    predictor = _predictor(args)
    number, seed = args.number or 6, args.seed or 0
    record = draw_examples(predictor, predictor.metadata, output, number, seed, args.confidence_threshold)
    counts = (f"{part['found']} of {part['present']} of {kind} classes" for kind, part in record["segments"].items())
    print(f"\nSegments found, of the right class and with an IoU above 0.5: {', '.join(counts)}.")
    print("The training had no image and no label of an unseen class; the model knows only its class embedding.")
    print(f"All images beside their ground truth: {output / OVERVIEW}")


if __name__ == "__main__":
    sys.exit(main())
