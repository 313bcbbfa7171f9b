#!/usr/bin/env python3
"""Count what a model of a config costs: floating point operations, activations, parameters; or print its structure.

    python tools/analyze_model.py --tasks parameter structure --config-file CONFIG
    python tools/analyze_model.py --tasks flop activation --config-file CONFIG --num-inputs 10
    python tools/analyze_model.py --tasks flop --config-file CONFIG --input-size 800 1216      # no data set is needed

Operations are multiply-adds of inference on one image, counted by fvcore; results are left at the size of the
model's input. Images come from DATASETS.TEST, resized as in evaluation. Weights play no part and are not loaded.
"""

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.analysis import FlopCountAnalysis, activation_count_operators, parameter_count_table
from fvcore.nn import flop_count_table
from fvcore.nn.jit_handles import get_shape
from torch import nn
from tqdm import tqdm

import PADing.meta_arch  # noqa: F401  registers the meta-architectures
from PADing.command_line import add_config_options, positive, run_command
from PADing.engine.main import prepare
from PADing.engine.start_check import BUILDING
from PADing.errors import UserError

Batch = list[dict]


def inputs_of(cfg: CfgNode, number: int, size: Sequence[int] | None = None) -> list[Batch]:
    """Batches of one image, ``[{"image": (3, H, W)}]``: from the first test set, or grey ones of ``size`` (H, W)."""
    if size is not None:
        return [[{"image": torch.full((3, *size), 128, dtype=torch.uint8)}]]
    from PADing.engine.trainer import Trainer

    if not cfg.DATASETS.TEST:
        raise UserError("DATASETS.TEST is empty, so there are no images to count with. Add --input-size H W.")
    loader = Trainer.build_test_loader(cfg, cfg.DATASETS.TEST[0])
    return [[{"image": sample["image"]}] for batch in islice(loader, number) for sample in batch][:number]


def count_flops(model: nn.Module, inputs: Sequence[Batch]) -> str:
    """Multiply-adds: a table by module for the last input, the mean by operator, and the total's mean and deviation."""
    by_operator, totals = Counter(), []
    with tensor_outputs(model):
        for batch in tqdm(inputs, desc="counting operations", mininterval=1):
            flops = FlopCountAnalysis(model, batch).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            flops.set_op_handle("aten::scaled_dot_product_attention", _attention_flops)
            totals.append(flops.total())
            by_operator += flops.by_operator()
    return "\n".join([
        f"Operations on an image of {_size(inputs[-1])}, by module:\n{flop_count_table(flops)}",
        f"Not counted there: {', '.join(sorted(name.removeprefix('aten::') for name in flops.unsupported_ops()))}",
        f"Mean by operator, in G multiply-adds: {_means(by_operator, len(inputs), 1e9)}",
        f"Total, in G multiply-adds: {np.mean(totals) / 1e9:.3f} +/- {np.std(totals) / 1e9:.3f} ({_over(inputs)})",
    ])  # fmt: skip


def count_activations(model: nn.Module, inputs: Sequence[Batch]) -> str:
    """Elements in the outputs of convolutions and matrix products: the mean by operator, and the total."""
    by_operator, totals = Counter(), []
    with tensor_outputs(model):
        for batch in tqdm(inputs, desc="counting activations", mininterval=1):
            counts = activation_count_operators(model, batch)
            totals.append(sum(counts.values()))
            by_operator += Counter(counts)
    return "\n".join([
        f"Mean by operator, in million activations: {_means(by_operator, len(inputs), 1)}",
        f"Total, in million activations: {np.mean(totals):.3f} +/- {np.std(totals):.3f} ({_over(inputs)})",
    ])  # fmt: skip


@contextmanager
def tensor_outputs(model: nn.Module) -> Iterator[None]:
    """In a ``with`` block, the model returns a tuple of the tensors in its results, and nothing else.

    Counting traces the model, and Detectron2 refuses to trace what returns numbers, as panoptic results do.
    """
    handle = model.register_forward_hook(lambda module, inputs, results: tuple(_tensors(results)))
    try:
        yield
    finally:
        handle.remove()


def _tensors(results) -> Iterator[torch.Tensor]:
    if isinstance(results, Boxes):
        results = results.tensor
    if isinstance(results, Instances):
        results = results.get_fields()
    if isinstance(results, torch.Tensor):
        yield results
    elif isinstance(results, (dict, list, tuple)):
        for part in results.values() if isinstance(results, dict) else results:
            yield from _tensors(part)


def _attention_flops(inputs: list, outputs: list) -> int:
    """Queries times keys, and weights times values; fvcore does not know this operator."""
    *batch, length, width = get_shape(inputs[0])
    keys, value_width = get_shape(inputs[2])[-2:]
    return int(np.prod(batch)) * length * keys * (width + value_width)


def _means(counter: Counter, number: int, unit: float) -> str:
    return ", ".join(f"{name} {count / number / unit:.4g}" for name, count in counter.most_common() if count)


def _size(batch: Batch) -> str:
    return "{} x {}".format(*batch[0]["image"].shape[1:])


def _over(inputs: Sequence[Batch]) -> str:
    return f"an image of {_size(inputs[0])}" if len(inputs) == 1 else f"{len(inputs)} images"


def main(args: argparse.Namespace) -> None:
    draws = bool({"flop", "activation"} & set(args.tasks)) and args.input_size is None
    cfg = prepare(args, BUILDING | ({"test", "test data"} if draws else set()))
    model = build_model(cfg).eval()
    counted = {"flop": count_flops, "activation": count_activations}
    inputs = inputs_of(cfg, args.num_inputs, args.input_size) if counted.keys() & set(args.tasks) else []
    for task in args.tasks:
        if task in counted:
            with torch.no_grad():
                print(counted[task](model, inputs))
        else:
            print(parameter_count_table(model, max_depth=5) if task == "parameter" else model)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = ["flop", "activation", "parameter", "structure"]
    parser.add_argument("--tasks", choices=tasks, nargs="+", required=True, help="what to count or print")
    add_config_options(parser, num_gpus=0)  # counts are the same on a GPU
    parser.add_argument("--num-inputs", type=positive, default=10, help="images to count with (%(default)s)")
    parser.add_argument(
        "--input-size", type=positive, nargs=2, metavar=("H", "W"), help="count with a grey image of this size"
    )
    return parser


if __name__ == "__main__":
    arguments = make_parser().parse_args()
    # Activations are those of convolutions and products by definition; what is left out of flops is printed above.
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    sys.exit(run_command(main, arguments))
