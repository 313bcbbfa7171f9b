"""Counts floating-point operations and activations of inference on one image, with fvcore."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from detectron2.utils.analysis import FlopCountAnalysis, activation_count_operators
from fvcore.nn import flop_count_table
from fvcore.nn.jit_handles import get_shape
from torch import nn
from tqdm import tqdm

from PADing.data.images import max_pixels
from PADing.engine.trainer import Trainer
from PADing.errors import UserError

Batch = list[dict]


def inputs_of(cfg: CfgNode, number: int, size: Sequence[int] | None = None) -> list[Batch]:
    """Batches of one image: ``number`` images of the first evaluation set, or one grey image of ``size`` (H, W).

    Each batch is ``[{"image": (3, H, W)}]`` (uint8 for the grey image). UserError if ``size`` is too large.
    """
    if size is not None:
        if np.prod(size) > max_pixels():
            raise UserError(f"--input-size {size[0]} {size[1]} has more pixels than images may have, {max_pixels():,}.")
        return [[{"image": torch.full((3, *size), 128, dtype=torch.uint8)}]]
    loader = Trainer.build_test_loader(cfg, cfg.DATASETS.TEST[0])
    return [[{"image": sample["image"]}] for batch in islice(loader, number) for sample in batch][:number]


@torch.no_grad()
def count_flops(model: nn.Module, inputs: Sequence[Batch]) -> str:
    """A report of multiply-adds: by module for the last input, mean by operator, mean and deviation of the total."""
    counts = []
    with _tensor_outputs(model):
        for batch in tqdm(inputs, desc="counting operations", mininterval=1):
            flops = FlopCountAnalysis(model, batch).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            flops.set_op_handle("aten::scaled_dot_product_attention", _attention_flops)
            counts.append(flops.by_operator())
    return (
        f"Operations on an image of {_size(inputs[-1])}, by module:\n{flop_count_table(flops)}\n"
        f"Not counted there: {', '.join(sorted(name.removeprefix('aten::') for name in flops.unsupported_ops()))}\n"
        + _summary(counts, inputs, "G multiply-adds", 1e9)
    )


@torch.no_grad()
def count_activations(model: nn.Module, inputs: Sequence[Batch]) -> str:
    """A report of activations (elements in outputs of convolutions and matrix products): by operator, and in total."""
    with _tensor_outputs(model):
        bar = tqdm(inputs, desc="counting activations", mininterval=1)
        counts = [Counter(activation_count_operators(model, batch)) for batch in bar]
    return _summary(counts, inputs, "million activations", 1)


def _summary(counts: Sequence[Counter], inputs: Sequence[Batch], unit: str, size: float) -> str:
    totals = [sum(count.values()) / size for count in counts]
    whole = sum(counts, Counter())
    means = (f"{name} {count / len(counts) / size:.4g}" for name, count in whole.most_common() if count)
    over = f"an image of {_size(inputs[0])}" if len(inputs) == 1 else f"{len(inputs)} images"
    return (
        f"Mean by operator, in {unit}: {', '.join(means)}\n"
        f"Total, in {unit}: {np.mean(totals):.3f} +/- {np.std(totals):.3f} ({over})"
    )


def _size(batch: Batch) -> str:
    return "{} x {}".format(*batch[0]["image"].shape[1:])


@contextmanager
def _tensor_outputs(model: nn.Module) -> Iterator[None]:
    """Inside, the model returns only the tensors of its results, because numbers cannot be traced."""
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
    """Multiply-adds of attention, which fvcore does not count: queries times keys, and weights times values."""
    *batch, length, width = get_shape(inputs[0])
    keys, value_width = get_shape(inputs[2])[-2:]
    return int(np.prod(batch)) * length * keys * (width + value_width)
