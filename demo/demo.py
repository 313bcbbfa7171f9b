#!/usr/bin/env python3
"""Segment your own images, a video, or what a camera sees; unseen classes are outlined in magenta.

    python demo/demo.py --config-file configs/panoptic-segmentation/PADing.yaml \
        --input street.jpg "holiday/*.jpg" --output drawn --opts MODEL.WEIGHTS PADing_panoptic/model_final.pth
    python demo/demo.py --config-file ... --video-input street.mp4 --output drawn.mp4 --opts MODEL.WEIGHTS ...
    python demo/demo.py --config-file ... --webcam --opts MODEL.WEIGHTS ...

Works for every architecture and task: it draws what the model returns (panoptic, else instances, else semantic).
Without --output the drawings are shown in a window; any key goes on, escape or q ends. Images that cannot be read are
listed, the others are drawn, and the exit status is then 2.
"""

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()  # before the imports that take seconds

import argparse
import sys
import time
from pathlib import Path

import torch
from detectron2.utils.logger import setup_logger
from tqdm import tqdm

from PADing.command_line import add_config_options, fraction, run_command
from PADing.engine.start_check import PREDICTION, checked_config
from PADing.errors import UserError
from PADing.visualization import ImageDrawer, read_rgb, write_rgb
from PADing.visualization.files import find_images, output_paths
from PADing.visualization.screen import Window
from PADing.visualization.video import VideoSource, VideoWriter

CONFIDENCE_KEY = "MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD"


def draw_images(
    predictor, paths: list[Path], drawings: list[Path], window: Window | None, threshold: float | None
) -> None:
    """Segment and draw each image; one that cannot be read is listed, and the others are drawn.

    Args:
        predictor: see ``PADing.inference``.
        drawings: where to write; not used with a window.
        threshold: least score of an instance to draw; None: half of the image's best score.

    Raises:
        UserError: at the end, when images failed.
    """
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
            print(f"left out: {what}", file=sys.stderr, flush=True)
            continue
        where = "" if window is not None else f" -> {drawing}"
        if window is None:
            write_rgb(drawing, drawn)
        print(f"{path}: {drawer.describe(seg)} ({seconds:.2f} s){where}", flush=True)
        if window is not None and not window.show(drawn):
            break
    if failed:
        raise UserError(f"{failed} of {len(paths)} images were left out; they are listed above.")


def draw_video(
    predictor, source: VideoSource, sink: VideoWriter | None, window: Window | None, threshold: float | None
) -> None:
    """Segment and draw each frame of a video or camera, into a file or a window."""
    drawer = ImageDrawer(predictor.metadata, threshold, enlarge=False)
    for frame in tqdm(source, total=source.length, desc="drawing", unit="frame", mininterval=1):
        drawn = drawer.draw_output(frame, predictor(frame))
        if sink is not None:
            sink.write(drawn)
        elif not window.show(drawn, wait=1):
            break


def main(args: argparse.Namespace) -> None:
    # What can be checked at once is checked before a model is built and loaded.
    window, drawings, sink = None, [], None
    paths = find_images(args.input or ())
    if args.output is None:
        instead = "Record a video and use --video-input" if args.webcam else "Name a file or folder with --output"
        window = Window("segmentation", f"{instead} instead.")
        drawings = paths
    elif args.webcam:
        raise UserError("--webcam shows a window and writes nothing: leave out --output.")
    elif args.input:
        drawings = output_paths(paths, args.output)
    source = None if args.input else VideoSource(0 if args.webcam else args.video_input)
    if source is not None and window is None:
        is_file = args.output.suffix and not args.output.is_dir()
        path = args.output if is_file else args.output / f"{Path(args.video_input).stem}.mp4"
        if path.resolve() == Path(args.video_input).resolve():
            raise UserError(f"--output would replace the video {path} by its drawing. Name another file.")
        sink = VideoWriter(path, source.rate)
    if args.confidence_threshold is not None:
        args.opts = [CONFIDENCE_KEY, str(args.confidence_threshold), *args.opts]
    threshold = args.confidence_threshold

    cfg = checked_config(args, PREDICTION)
    from PADing.inference import Predictor

    predictor = Predictor(cfg, one_result=True)
    if source is None:
        draw_images(predictor, paths, drawings, window, threshold)
    elif sink is None:
        draw_video(predictor, source, None, window, threshold)
    else:
        with sink:
            draw_video(predictor, source, sink, None, threshold)
        print(f"written: {sink.path}")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_options(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--input", nargs="+", metavar="IMAGE", help='images, folders, or patterns like "dir/*.jpg"')
    what.add_argument("--video-input", metavar="FILE", help="a video file")
    what.add_argument("--webcam", action="store_true", help="the first camera")
    parser.add_argument("--output", type=Path, help="folder for the drawings, or a file for one; default: a window")
    parser.add_argument(
        "--confidence-threshold",
        type=fraction,
        metavar="SCORE",
        help="least score of what is drawn, 0 to 1 (default: half of the image's best score for instances; as the "
        "config says for panoptic results)",
    )
    return parser


if __name__ == "__main__":
    arguments = make_parser().parse_args()
    for name in ("fvcore", "PADing"):
        setup_logger(name=name)
    sys.exit(run_command(main, arguments))
