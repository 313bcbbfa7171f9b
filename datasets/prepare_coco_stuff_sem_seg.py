#!/usr/bin/env python3
"""Zero-shot semantic label PNGs of COCO-Stuff 156/15 from the official stuffthingmaps.

    python datasets/prepare_coco_stuff_sem_seg.py

From ``coco_stuff/annotations/{train,val}2017/*.png`` (pixel value = COCO-Stuff id - 1, 255 = unlabeled) it writes to
``coco_stuff/annotations_detectron2/``:

    train2017        contiguous ids of the seen classes, all other pixels 255; images with unseen classes are kept
    val2017_seen     the same for validation images
    val2017_unseen   contiguous ids of the unseen classes, counted from 0, all other pixels 255
    val2017_all      contiguous ids of all classes: seen, then unseen

You can interrupt it: existing files are kept.

For your own label PNGs, whose pixel values are category ids of your split file (255 = ignore, or --ignore VALUE):

    python datasets/prepare_coco_stuff_sem_seg.py --split-file my_maps.yaml --data-set maps_train_semantic \\
        --source raw/train
"""

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()  # before the imports that take seconds

import logging
import os
import sys
from pathlib import Path

import numpy as np

from PADing.command_line import CommandParser, run_command
from PADing.data.images import read_labels
from PADing.data.preparation import add_workers_flag, write_label_maps
from PADing.data.splits import IGNORE_LABEL, DataSet, Split, dataset_root, load_split
from PADing.errors import UserError

logger = logging.getLogger("prepare_coco_stuff")

SPLIT_FILE = str(Path(__file__).resolve().parent / "splits" / "coco_stuff_156_15.yaml")
UNKNOWN = -1
LARGEST_LABEL = 2**16 - 1


def label_table(split: Split, data_set: DataSet, ignore: int = IGNORE_LABEL) -> np.ndarray:
    """int16 table: raw pixel value -> label of ``data_set``; 255 for classes that it lacks, -1 for unknown values."""
    classes = split.classes(data_set)
    if len(classes) > IGNORE_LABEL:
        raise UserError(f"Data set {data_set.name} has {len(classes)} classes; label PNGs hold at most {IGNORE_LABEL}.")
    ids = [category.id for category in split.categories]
    if ignore in ids:
        raise UserError(f"{split.file} has a category with id {ignore}, the value of ignored pixels; see --ignore.")
    if not 0 <= ignore <= LARGEST_LABEL or max(ids) > LARGEST_LABEL:
        raise UserError(
            f"{split.file}: label PNGs hold values 0..{LARGEST_LABEL}; --ignore {ignore}, ids up to {max(ids)}."
        )
    table = np.full(max([*ids, ignore]) + 1, UNKNOWN, dtype=np.int16)
    table[[*ids, ignore]] = IGNORE_LABEL
    hidden = {"seen": split.unseen, "unseen": split.seen, "all": ()}[data_set.subset]
    for label, category in enumerate(classes):
        if category.name not in hidden:
            table[category.id] = label
    return table


def convert(job: tuple[str, np.ndarray, str]) -> np.ndarray:
    """(raw label PNG, table, output PNG) -> the label map, (H, W) uint8."""
    source, table, _ = job
    raw = read_labels(source)
    values = np.unique(raw)
    unknown = values[(values >= len(table)) | (table[np.minimum(values, len(table) - 1)] == UNKNOWN)]
    if unknown.size:
        raise UserError(
            f"Label file {source} has the values {unknown.tolist()}, which are not the id of any category in the split "
            "file. Are these label maps of another release or already converted?"
            + (" If 0 is background, add --ignore 0." if 0 in unknown else "")
        )
    return table[raw].astype(np.uint8)


def prepare(
    split: Split, data_set: DataSet, source: str, output: str, workers: int = 1, ignore: int = IGNORE_LABEL
) -> None:
    """Convert every PNG below ``source`` to the labels of ``data_set``.

    UserError: no input, an unreadable file, an unknown pixel value, or existing output of another split.
    """
    table = label_table(split, data_set, ignore)
    if os.path.isdir(source) and os.path.isdir(output) and os.path.samefile(source, output):
        raise UserError(
            f"The source {source} is also the output for {data_set.name}. Keep raw labels in another folder."
        )
    files = sorted(file for file in Path(source).rglob("*.png") if not file.name.startswith("."))
    if not files:
        raise UserError(f"There is no PNG below {source}. docs/coco.md says where the stuffthingmaps come from.")
    jobs = [(str(file), table, os.path.join(output, file.relative_to(source))) for file in files]
    write_label_maps(convert, jobs, output, workers)
    raw, _, png = jobs[0]  # it may be an older file
    if not np.array_equal(table[read_labels(raw)], read_labels(png)):
        raise UserError(
            f"{png} was made for another split than {split.file} ({data_set.name}). Delete its folder and try again."
        )
    logger.info("%s: %d label files of %d classes", output, len(jobs), len(split.classes(data_set)))


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    root = dataset_root()
    parser = CommandParser(__doc__)
    parser.add_argument("--split-file", default=SPLIT_FILE, help="split file that names the classes")
    parser.add_argument("--source", help="folder of raw PNGs (default: coco_stuff/annotations/{train,val}2017)")
    parser.add_argument("--data-set", nargs="+", help="data sets of the split file (default: all semantic ones)")
    parser.add_argument("--ignore", type=int, default=IGNORE_LABEL, help="raw value of ignored pixels")
    add_workers_flag(parser)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)

    def run() -> None:
        split = load_split(args.split_file)
        names = args.data_set or [d.name for d in split.data_sets if d.kind == "semantic"]
        for data_set in [split.data_set(name) for name in names]:
            raw = os.path.join(root, "coco", "coco_stuff", "annotations", f"{data_set.role}2017")
            output = split.metadata(data_set, root)["sem_seg_root"]
            prepare(split, data_set, args.source or raw, output, args.workers, args.ignore)

    return run_command(run)


if __name__ == "__main__":
    sys.exit(main())
