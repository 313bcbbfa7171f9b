#!/usr/bin/env python3
"""Count floating point operations, activations and parameters of a config's model, or print its structure.

    python tools/analyze_model.py --tasks parameter structure --config-file CONFIG
    python tools/analyze_model.py --tasks flop activation --config-file CONFIG --num-inputs 10
    python tools/analyze_model.py --tasks flop --config-file CONFIG --input-size 800 1216      # needs no data set

Operations are multiply-adds of inference on one image, counted by fvcore. Results keep the size of the model's input.
Images come from DATASETS.TEST, resized as in evaluation. Weights are not loaded: they do not change the counts.
"""

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()  # before the imports that take seconds

import argparse
import logging
import sys

from PADing.command_line import CommandParser, add_config_options, positive, run_command


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__)
    tasks = ["flop", "activation", "parameter", "structure"]
    parser.add_argument("--tasks", choices=tasks, nargs="+", required=True, help="what to count or print")
    add_config_options(parser, num_gpus=0)  # counts are the same on a GPU
    parser.add_argument("--num-inputs", type=positive, default=10, help="images to count with")
    size = {"type": positive, "nargs": 2, "metavar": ("H", "W")}
    parser.add_argument("--input-size", **size, help="count with a grey image of this size")
    return run_command(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    # Imported here, because they import PyTorch.
    from detectron2.modeling import build_model
    from detectron2.utils.analysis import parameter_count_table

    from PADing.engine.cost import count_activations, count_flops, inputs_of
    from PADing.engine.start_check import BUILDING, checked_config

    functions = {"flop": count_flops, "activation": count_activations}
    # fvcore warns of skipped operators. Activations count convolutions and products only; skipped flops are printed.
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    counted = functions.keys() & set(args.tasks)
    needs = {"test", "test data"} if counted and args.input_size is None else set()
    cfg = checked_config(args, BUILDING | needs)
    model = build_model(cfg).eval()
    inputs = inputs_of(cfg, args.num_inputs, args.input_size) if counted else []
    for task in args.tasks:
        if task in functions:
            print(functions[task](model, inputs))
        else:
            print(parameter_count_table(model, max_depth=5) if task == "parameter" else model)


if __name__ == "__main__":
    sys.exit(main())
