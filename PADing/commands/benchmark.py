"""Measures time and memory: of the attention operator beside others, or of the whole model beside other programs.

    python tools/benchmark.py msda [--output FILE] [--device cpu|cuda] [--case NAME]
    python tools/benchmark.py model [--task NAME] [--rounds N] [--checkout FOLDER] [--beside NAME=COMMAND]
    python tools/benchmark.py data [--task NAME] [--rounds N] [--checkout FOLDER] [--coco FOLDER]
    python tools/benchmark.py scaling [--config-file FILE] [--processes N] [--contender NAME] [KEY VALUE ...]

``model``: inference and training steps of the R-50 panoptic model on the CPU, stage by stage, beside older checkouts of
this project, the network of transformers' Mask2Former, and any program that takes the same arguments
(docs/benchmarks.md). Each measurement is a fresh process, and contenders take turns. The floor says how fast this
machine multiplies matrices and convolves.

``data``: training mappers and evaluators, in the same way; seconds of an image, on one thread.

``scaling``: training steps of one and of several processes, on CPUs or GPUs of one machine: speedup, bytes sent, time
waited, memory of each process; and, computed from the bytes and from published bandwidths, the efficiency of 8 and of
4 x 8 GPUs (docs/scaling.md).

``msda``: multi-scale deformable attention with every available backend and every installed peer (transformers, mmcv,
deformops; on a GPU also the classic kernel with one thread per output channel), forward alone (``fwd``) and with
backward (``fwdbwd``). Backends take turns, so that other load on the machine affects all of them. ``ratio_to_pytorch``
is the speedup over this project's ``grid_sample`` path in the same run. ``peak_mb`` is the largest memory in use during
a call, minus that before it.
"""

import argparse
import logging
import sys
from pathlib import Path

from PADing.command_line import CommandParser, positive, run_command

# name -> batch, levels (h, w) finest first, queries (None: every position of every level)
CASES: dict[str, tuple[int, list[tuple[int, int]], int | None]] = {
    "800x1066": (1, [(100, 134), (50, 67), (25, 34)], None),
    "512x512": (1, [(64, 64), (32, 32), (16, 16)], None),
    "1024x1024_batch2": (2, [(128, 128), (64, 64), (32, 32)], None),
    "300_queries": (1, [(100, 134), (50, 67), (25, 34)], 300),
}
# Of the model benchmark.
MODEL_TASKS = ("floor", "network", "panoptic", "all-results", "training", "second-stage")
FURTHER_TASKS = ("semantic", "instance")
# Of the data benchmark.
DATA_TASKS = (
    "load-semantic", "load-instance", "load-panoptic", "evaluate-semantic", "evaluate-instance", "evaluate-panoptic",
)  # fmt: skip
# Of the scaling benchmark: options of DistributedDataParallel, and config keys.
CONTENDERS: dict[str, dict] = {
    "as-trained": {},
    "copied-gradients": {"ddp": {"gradient_as_bucket_view": False}},
    "static-graph": {"ddp": {"static_graph": True}},
    "buckets-of-5-mib": {"ddp": {"bucket_cap_mb": 5}},
    "buckets-of-100-mib": {"ddp": {"bucket_cap_mb": 100}},
    "shared-optimizer": {"opts": ["SOLVER.SHARDING", "optimizer"]},
    "checkpointing": {
        "opts": [
            "MODEL.BACKBONE.ACTIVATION_CHECKPOINTING", True, "MODEL.SEM_SEG_HEAD.ACTIVATION_CHECKPOINTING", True,
        ]
    },
}  # fmt: skip
DTYPE_NAMES = ("float32", "float64", "bfloat16", "float16")
KINDS = ("cpu", "cuda")


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = CommandParser(__doc__)
    commands = parser.add_subparsers(required=True)
    msda = commands.add_parser("msda", help="multi-scale deformable attention")
    msda.add_argument("--output", "--json", type=Path, metavar="FILE", help="also write the rows here, as JSON")
    msda.add_argument("--device", choices=KINDS, help="default: cuda if there is one")
    msda.add_argument("--threads", type=positive, help="CPU threads (default: PyTorch's)")
    msda.add_argument("--case", action="append", choices=CASES, help="may be repeated; default: the encoder's sizes")
    msda.add_argument("--dtype", action="append", choices=DTYPE_NAMES, help="may be repeated; default: 32 and 16 bits")
    msda.add_argument("--rounds", type=positive, default=20, help="measurements of each contender")
    msda.add_argument("--seconds", type=float, default=30.0, help="stop a table after this long (at least 3 rounds)")
    msda.set_defaults(measure=_measure_operator)
    _add_scaling(commands.add_parser("scaling", help="training steps of several processes, and how GPUs would scale"))
    _add_model(commands.add_parser("model", help="inference and training of the whole model, on the CPU"))
    _add_data(commands.add_parser("data", help="training mappers and evaluators"))
    args = parser.parse_args(argv)
    return run_command(args.measure, args)


def _add_model(model: argparse.ArgumentParser) -> None:
    tasks = (*MODEL_TASKS, *FURTHER_TASKS)
    model.add_argument(
        "--task", action="append", choices=tasks, help=f"may be repeated; default: {', '.join(MODEL_TASKS)}"
    )
    model.add_argument("--threads", type=positive, help="CPU threads (default: the number of cores)")
    model.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="bfloat16: mixed precision")
    model.add_argument("--compile", action="store_true", help="of this checkout, with torch.compile")
    _add_contest(model)


def _add_data(data: argparse.ArgumentParser) -> None:
    data.add_argument("--task", action="append", choices=DATA_TASKS, help="may be repeated; default: all")
    data.add_argument("--objects", type=positive, default=8, metavar="N", help="of each drawn image (default: 8)")
    data.add_argument(
        "--coco", type=Path, metavar="FOLDER",
        help="load val2017 of a folder that has COCO's layout (default: drawn images)",
    )  # fmt: skip
    _add_contest(data)
    data.set_defaults(threads=1, dtype="float32", compile=False)


def _add_contest(model: argparse.ArgumentParser) -> None:
    """Options of benchmarks whose contenders take turns."""
    model.add_argument("--rounds", type=positive, default=3, help="processes of each contender for each task")
    model.add_argument("--repeats", type=positive, default=3, help="measured calls of a process, after one that is not")
    model.add_argument("--height", type=positive, default=640, help="of the image, in pixels")
    model.add_argument("--width", type=positive, default=853, help="of the image, in pixels")
    model.add_argument(
        "--checkout", type=Path, action="append", default=[], metavar="FOLDER",
        help="also measure an older checkout of this project; may be repeated",
    )  # fmt: skip
    model.add_argument(
        "--beside", action="append", default=[], metavar="NAME=COMMAND",
        help="also measure a program that takes the same arguments; may be repeated",
    )  # fmt: skip
    model.add_argument(
        "--join", type=Path, action="append", default=[], metavar="FILE",
        help="add the rows of an earlier result to the table; may be repeated",
    )  # fmt: skip
    model.add_argument(
        "--output", type=Path, metavar="FILE", help="also write all times here, as JSON, after each process"
    )
    model.set_defaults(measure=_measure_model)


def _add_scaling(scaling: argparse.ArgumentParser) -> None:
    scaling.add_argument(
        "--config-file", type=Path, metavar="FILE", default=Path("configs/panoptic-segmentation/pretrain.yaml"),
        help="of the training (default: %(default)s)",
    )  # fmt: skip
    scaling.add_argument(
        "--processes", type=positive, action="append", metavar="N", help="may be repeated; default: 1 and 2"
    )
    scaling.add_argument("--images", type=positive, default=1, metavar="N", help="of each process (default: 1)")
    scaling.add_argument("--side", type=positive, default=512, help="of the square images, in pixels (default: 512)")
    scaling.add_argument("--rounds", type=positive, default=3, help="jobs of each kind (default: 3)")
    scaling.add_argument("--repeats", type=positive, default=3, help="measured steps of a job, after two that are not")
    scaling.add_argument("--threads", type=positive, default=1, help="CPU threads of each process (default: 1)")
    scaling.add_argument("--device", choices=KINDS, default="cpu", help="cuda: one GPU for each process (default: cpu)")
    scaling.add_argument(
        "--contender", action="append", choices=CONTENDERS, help="may be repeated; default: as-trained"
    )
    scaling.add_argument("--estimate", action="store_true", help="measure nothing; compute how GPUs would scale")
    scaling.add_argument(
        "--step-seconds", type=_seconds, metavar="S",
        help="of a step on one GPU, for the computed part (default: the fastest measured; with --estimate 0.5)",
    )  # fmt: skip
    scaling.add_argument(
        "--output", type=Path, metavar="FILE", help="also write all times here, as JSON, after each job"
    )
    scaling.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys, last")
    scaling.set_defaults(measure=_measure_scaling)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


def _measure_operator(args: argparse.Namespace) -> None:
    from PADing.modeling.pixel_decoder.ops.benchmark import benchmark_msda  # imports PyTorch

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)  # after the imports, which log
    benchmark_msda(args)


def _measure_model(args: argparse.Namespace) -> None:
    from PADing.model_benchmark.run import benchmark_model

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    benchmark_model(args)


def _measure_scaling(args: argparse.Namespace) -> None:
    from PADing.model_benchmark.scaling import benchmark_scaling

    args.processes = sorted(set(args.processes or (1, 2)))
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("detectron2", "PADing", "d2lite"):  # they describe each model at length
        logging.getLogger(name).setLevel(logging.WARNING)
    benchmark_scaling(args)
