#!/usr/bin/env python3
"""Turn weights of stage 1 (train_net_pretrain.py) into starting weights of PADing's stage 2 (train_net.py).

    python tools/preprocess_pretrained_weight.py --task_name panoptic --input_file panoptic_pretrain/model_final.pth

writes pretrained_weight_panoptic.pth. The class head grows to all classes of the split. A shipped split is found by the
number of classes in the file; for your own data set add --split my_split.yaml.
"""

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()  # before the imports that take seconds

import argparse
import sys
from pathlib import Path

from PADing.command_line import CommandParser, run_command
from PADing.data.splits import load_split, shipped_split_files
from PADing.errors import UserError

# Those of PADing.generation.convert, which imports PyTorch.
TASKS = ("panoptic", "instance", "semantic")
LAYOUTS = ("reference", "clean")
KINDS = ("model", "ema")


def find_splits(name: str | None) -> list:
    """The split of a file, or of a shipped split's name or its end (such as 48_17); None: all shipped splits."""
    shipped = shipped_split_files()
    if name is None:
        return [load_split(path) for path in shipped]
    if Path(name).suffix in (".yaml", ".yml"):
        return [load_split(name)]
    stems = {Path(path).stem: path for path in shipped}
    matches = [stem for stem in stems if stem == name] or [stem for stem in stems if stem.endswith(f"_{name}")]
    if len(matches) != 1:
        known = ", ".join(stems)
        raise UserError(f"--split {name!r} is neither a split file (.yaml) nor one of the shipped splits: {known}.")
    return [load_split(stems[matches[0]])]


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__)
    parser.add_argument("--task_name", choices=TASKS, default="panoptic", help="task of the pretraining")
    stage_1 = "supervise/model_final.pth"
    parser.add_argument("--input_file", "--input", metavar="FILE", default=stage_1, help="weights of stage 1")
    output = "file to write (default: pretrained_weight_<task_name>.pth)"
    parser.add_argument("--output_file", "--output", type=Path, help=output)
    parser.add_argument(
        "--split", help="split file, or name of a shipped split, such as 48_17 (default: by the number of classes)"
    )
    layout = "reference: rows as in the published weights; clean: the no-object row stays last"
    parser.add_argument("--layout", choices=LAYOUTS, default="reference", help=layout)
    kinds = "model: the ordinary weights; ema: the averaged ones, of a training with SOLVER.EMA"
    parser.add_argument("--weights_from", choices=KINDS, default="model", help=kinds)
    parser.add_argument("--overwrite", action="store_true", help="replace an output file that exists")
    return run_command(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    from PADing.generation.convert import convert_file  # imports PyTorch

    output = args.output_file or Path(f"pretrained_weight_{args.task_name}.pth")
    splits = find_splits(args.split)
    convert_file(args.input_file, output, args.task_name, splits, args.layout, args.overwrite, args.weights_from)
    print(f"Wrote {output}, from the {'averaged' if args.weights_from == 'ema' else 'ordinary'} weights")


if __name__ == "__main__":
    sys.exit(main())
