#!/usr/bin/env python3
"""Semantic label PNGs from panoptic annotation, for the semantic metrics of panoptic models.

    python datasets/prepare_coco_semantic_annos_from_panoptic_annos.py

For val2017, then train2017, it reads ``annotations/panoptic_*.json`` and ``panoptic_*/`` and writes
``panoptic_semseg_*/*.png``: pixel value = contiguous id of the segment's class (things, then stuff), 255 elsewhere.
Crowd segments are included. You can interrupt it: existing files are kept.

For your own data, name a split file with a panoptic data set:

    python datasets/prepare_coco_semantic_annos_from_panoptic_annos.py --split-file my_split.yaml \\
        --json panoptic_val.json --panoptic-root panoptic_val --output panoptic_semseg_val
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
from PADing.data.images import read_labels, read_panoptic_ids
from PADing.data.preparation import add_workers_flag, read_annotation, write_label_maps
from PADing.data.splits import IGNORE_LABEL, Split, dataset_root, load_split
from PADing.errors import UserError

logger = logging.getLogger("prepare_semantic_from_panoptic")

SPLIT_FILE = str(Path(__file__).resolve().parent / "splits" / "coco_panoptic_119_14.yaml")


def paint(job: tuple[str, list[tuple[int, int]], str]) -> np.ndarray:
    """(panoptic PNG, [(segment id, label)], output PNG) -> the label map, (H, W) uint8."""
    source, segments, _ = job
    ids = read_panoptic_ids(source)
    labels = np.full(ids.shape, IGNORE_LABEL, dtype=np.uint8)
    for segment_id, label in segments:
        labels[ids == segment_id] = label
    return labels


def prepare(panoptic_json: str, panoptic_root: str, output: str, split: Split, workers: int = 1) -> None:
    """Write one label PNG per annotation.

    UserError: a missing or damaged input, a category that the split does not have, or wrong labels in existing files.
    """
    labels = {c.id: i for i, c in enumerate(split.vocabulary("panoptic", "listed"))}
    if len(labels) > IGNORE_LABEL:
        raise UserError(f"{split.file} has {len(labels)} classes; label PNGs hold at most {IGNORE_LABEL}.")
    if os.path.isdir(output) and os.path.isdir(panoptic_root) and os.path.samefile(output, panoptic_root):
        raise UserError(f"{output} is the folder of the panoptic PNGs. Name another folder for the labels.")
    known = {category.id for category in split.categories}
    jobs = []
    for annotation in read_annotation(panoptic_json, "Panoptic annotation")["annotations"]:
        name, segments = annotation["file_name"], annotation["segments_info"]
        unknown = {s["category_id"] for s in segments} - known
        if unknown:
            raise UserError(
                f"{panoptic_json}: image {annotation['image_id']} has categories {sorted(unknown)}, which {split.file} "
                "does not list."
            )
        if os.path.isabs(name) or ".." in Path(name).parts:
            raise UserError(f"{panoptic_json}: the file name {name!r} points outside its folder.")
        # Listed classes that are neither seen nor unseen are ignored.
        used = [(s["id"], labels[s["category_id"]]) for s in segments if s["category_id"] in labels]
        png = os.path.join(output, os.path.splitext(name)[0] + ".png")
        jobs.append((os.path.join(panoptic_root, name), used, png))
    write_label_maps(paint, jobs, output, workers)
    if jobs:
        _, used, png = jobs[0]  # it may be an older file
        extra = set(np.unique(read_labels(png)).tolist()) - {IGNORE_LABEL, *(label for _, label in used)}
        if extra:
            raise UserError(
                f"{png} has labels {sorted(extra)} that no segment has. Delete its folder and run this again."
            )
    logger.info("%s: %d label files", output, len(jobs))


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    coco = os.path.join(dataset_root(), "coco")
    parser = CommandParser(__doc__)
    parser.add_argument("--root", default=coco, help="folder of COCO")
    parts = "parts of COCO (default: val2017 train2017)"
    parser.add_argument("--parts", nargs="+", default=("val2017", "train2017"), help=parts)
    parser.add_argument("--split-file", default=SPLIT_FILE, help="split file that names the classes")
    parser.add_argument("--json", help="own data: panoptic JSON")
    parser.add_argument("--panoptic-root", help="own data: folder of the panoptic PNGs")
    parser.add_argument("--output", help="own data: folder to write to")
    add_workers_flag(parser)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    own = (args.json, args.panoptic_root, args.output)
    if any(own) and not all(own):
        parser.error("--json, --panoptic-root and --output belong together")
    names = ("annotations/panoptic_{}.json", "panoptic_{}", "panoptic_semseg_{}")
    coco_jobs = [[os.path.join(args.root, name.format(part)) for name in names] for part in args.parts]

    def run() -> None:
        split = load_split(args.split_file)
        for job in [own] if all(own) else coco_jobs:
            prepare(*job, split, args.workers)

    return run_command(run)


if __name__ == "__main__":
    sys.exit(main())
