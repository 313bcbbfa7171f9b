#!/usr/bin/env python3
"""Draw data: annotations as they are on disk, or training examples after mapper and augmentation.

    python tools/visualize_data.py --source annotation --config-file CONFIG --output drawings
    python tools/visualize_data.py --source dataloader --config-file CONFIG --output drawings --number 20
    python tools/visualize_data.py --source annotation --config-file CONFIG --output drawings \\
        DATASETS.TRAIN "('mini_val_panoptic',)"          # any data set

Works for panoptic, instance and semantic data. Unseen classes have a magenta outline: a training set should show none.
"""

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()  # before the imports that take seconds

import argparse
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from PADing.command_line import CommandParser, add_config_options, count, run_command
from PADing.errors import UserError
from PADing.output_names import safe_stem

# What imports PyTorch is imported in the functions.
if TYPE_CHECKING:
    import numpy as np
    from detectron2.config import CfgNode


def draw_annotations(cfg: "CfgNode") -> "Iterator[tuple[str, np.ndarray]]":
    """(name, (h, w, 3) uint8 RGB) of every record of the sets in ``DATASETS.TRAIN``."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from PADing.visualization import ImageDrawer, read_rgb

    for name in cfg.DATASETS.TRAIN:
        drawer = ImageDrawer(MetadataCatalog.get(name))
        for record in DatasetCatalog.get(name):
            yield safe_stem(record["file_name"]), drawer.draw_record(read_rgb(record["file_name"]), record)


def draw_training_examples(cfg: "CfgNode") -> "Iterator[tuple[str, np.ndarray]]":
    """(name, (h, w, 3) uint8 RGB) of training examples of this config, in training order, without end."""
    from detectron2.data import MetadataCatalog
    from detectron2.utils.env import seed_all_rng

    from PADing.engine.trainer import Trainer
    from PADing.visualization import ImageDrawer

    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED)
    drawer = ImageDrawer(MetadataCatalog.get(cfg.DATASETS.TRAIN[0]))
    for batch in Trainer.build_train_loader(cfg):
        for sample in batch:
            yield safe_stem(sample["file_name"]), drawer.draw_sample(sample, cfg.INPUT.FORMAT)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__)
    parser.add_argument("--source", choices=["annotation", "dataloader"], required=True, help="what to draw")
    add_config_options(parser, num_gpus=0)  # drawing needs no GPU
    parser.add_argument("--output", "--output-dir", type=Path, default=Path("./"), help="folder for the drawings")
    parser.add_argument("--show", action="store_true", help="show the drawings in a window instead of writing them")
    parser.add_argument("--number", type=count, default=50, help="images to draw; 0: all annotations")
    return run_command(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    from detectron2.data import MetadataCatalog
    from detectron2.utils.logger import setup_logger
    from tqdm import tqdm

    from PADing.engine.start_check import checked_config
    from PADing.visualization import write_rgb
    from PADing.visualization.image_files import keep_originals
    from PADing.visualization.screen import Window

    if __name__ == "__main__":
        setup_logger(name="PADing")
    window = Window("data", "Leave out --show to write the drawings to --output.") if args.show else None
    if not args.number and args.source == "dataloader":
        raise UserError("--number 0 means all, but training examples never end. Give a number.")
    cfg = checked_config(args, {"train data", *(["train"] if args.source == "dataloader" else [])})
    drawn = draw_annotations(cfg) if args.source == "annotation" else draw_training_examples(cfg)
    if window is None:
        roots = (MetadataCatalog.get(name).get("image_root") for name in cfg.DATASETS.TRAIN)
        keep_originals(args.output, [args.output / "1.png"], [f"{root}/" for root in roots if root])
    number = 0
    for number, (name, image) in enumerate(tqdm(islice(drawn, args.number or None), desc="drawing", mininterval=1), 1):
        if window is None:
            # Numbered: training shows images repeatedly, and images in several folders may have the same name.
            write_rgb(args.output / f"{number:05d}-{name}.png", image)
        elif not window.show(image):
            break
    if window is None:
        print(f"{number} drawings: {args.output}")


if __name__ == "__main__":
    sys.exit(main())
