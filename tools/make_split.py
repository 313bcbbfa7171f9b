#!/usr/bin/env python3
"""Make a split file from COCO-format annotation and a list of unseen classes.

    python tools/make_split.py --name mine --unseen "cat,dog" --output my_split.yaml \\
        --train-json train.json --train-images images/train --val-json val.json --val-images images/val

Categories (ids, names, thing or stuff, colours) come from the JSON files.

Panoptic JSONs (with ``segments_info``) need ``--train-panoptic`` and ``--val-panoptic``, the folders of their PNGs.
They may have ``--train-instances`` and ``--val-instances``, COCO instances for box and mask metrics.

``--train-labels`` and ``--val-labels`` add folders of semantic label PNGs with contiguous ids; docs/your_data.md says
how to make them. If there are only labels, ``--categories`` names the classes: a JSON list of ``{"id", "name"}``.

At the end it prints the commands that train on the data.
"""

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()  # before the imports that take seconds

import argparse
import logging
import os
import shlex
import sys

from PADing.command_line import CommandParser, as_typed, run_command
from PADing.data.splits import DataSet, Split

logger = logging.getLogger("make_split")

# The paths of training and of validation data.
PATHS = {
    "json": "COCO instances or panoptic JSON",
    "images": "folder of the images",
    "panoptic": "folder of the panoptic PNGs",
    "instances": "COCO instances JSON beside a panoptic one",
    "labels": "folder of semantic label PNGs",
}


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__)
    parser.add_argument("--name", required=True, help="name of the split")
    unseen = "names of unseen classes: separated by commas, or a file with one name per line"
    parser.add_argument("--unseen", required=True, help=unseen)
    parser.add_argument("--output", required=True, help="the split file to write (.yaml)")
    for role in ("train", "val"):
        for key, text in PATHS.items():
            parser.add_argument(f"--{role}-{key}", help=text)
    parser.add_argument("--categories", help="JSON list of classes ({id, name, isthing}), for data without other JSON")
    parser.add_argument("--class-embeddings", default="", help="file of class embeddings; you can make it later")
    return run_command(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    # Imported here, because they import PyTorch.
    from PADing.data.embedding_sources import read_names
    from PADing.data.make_split import make_split

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)  # after the imports, which log
    if os.path.isfile(args.unseen):
        unseen = read_names(args.unseen)
    else:
        unseen = [name.strip() for name in args.unseen.split(",") if name.strip()]
    train, val = ({key: getattr(args, f"{role}_{key}") for key in PATHS} for role in ("train", "val"))
    split = make_split(args.name, unseen, args.output, train, val, args.class_embeddings, args.categories)
    tests = {data_set.kind: data_set for data_set in reversed(split.data_sets) if data_set.role == "val"}
    for data_set in split.data_sets:
        if data_set.role == "train" and data_set.kind in tests:
            commands = _commands(split, args.output, data_set, tests[data_set.kind])
            logger.info("\n# %s\n%s", data_set.kind, "\n".join(commands))


def _commands(split: Split, file: str, train: DataSet, test: DataSet) -> list[str]:
    """Both stages of PADing and the conversion between them; ``file``: the split file as the user wrote it."""
    config, out = f"configs/{train.kind}-segmentation", f"output/{split.name}_{train.kind}"
    files = repr((file,)) if set(file) & set(",()[]") else file
    data = ["DATASETS.SPLIT_FILES", files, "DATASETS.TRAIN", train.name, "DATASETS.TEST", test.name]
    converted = f"{out}_1/converted.pth"
    convert = ["--task_name", train.kind, "--split", file]
    convert += ["--input_file", f"{out}_1/model_final.pth", "--output_file", converted]
    stage_2 = [*data, "MODEL.WEIGHTS", converted, "OUTPUT_DIR", f"{out}_2"]
    if not split.class_embeddings:
        stage_2 += ["MODEL.CLASS_EMBEDDINGS", "EMBEDDINGS.npz"]
    lines = [
        ["train_net_pretrain.py", "--config-file", f"{config}/pretrain.yaml", *data, "OUTPUT_DIR", f"{out}_1"],
        ["tools/preprocess_pretrained_weight.py", *convert],
        ["train_net.py", "--config-file", f"{config}/PADing.yaml", *stage_2],
    ]
    return [as_typed(shlex.join(["python", *line])) for line in lines]


if __name__ == "__main__":
    sys.exit(main())
