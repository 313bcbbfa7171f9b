"""Counts multiply-adds, activations and parameters of a model by fvcore, which traces tensors only."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import fvcore.nn
import torch
from detectron2.structures import Boxes, Instances
from fvcore.nn import flop_count_table, parameter_count, parameter_count_table  # noqa: F401

from d2lite.omitted import omitted_names

__getattr__ = omitted_names(__name__, "find_unused_parameters flop_count_operators")


class FlopCountAnalysis(fvcore.nn.FlopCountAnalysis):
    """fvcore's, for a batch or tuple of arguments; ValueError if outputs hold anything but tensors."""

    def __init__(self, model: torch.nn.Module, inputs: Any):
        super().__init__(*_traceable(model, inputs if isinstance(inputs, tuple) else (inputs,)))


def activation_count_operators(model: torch.nn.Module, inputs: list[dict], **kwargs) -> defaultdict[str, float]:
    """Millions of numbers that come out of each kind of operator, such as ``{"conv": 1.5}``, in evaluation mode.

    ``inputs`` is one image, ``[{"image": 3 x H x W}]``; ``kwargs`` are of ``fvcore.nn.activation_count``.
    """
    (sample,) = inputs
    return fvcore.nn.activation_count(*_traceable(model.eval(), ([{"image": sample["image"]}],)), **kwargs)[0]


def _traceable(model: torch.nn.Module, arguments: tuple) -> tuple[torch.nn.Module, tuple]:
    """The model as a module that takes and returns tensors, and the tensors to give to it."""
    found: list[torch.Tensor] = []
    _map_leaves(arguments, lambda leaf: found.append(leaf) if isinstance(leaf, torch.Tensor) else None)
    return _Adapter(model, arguments), tuple(found)


class _Adapter(torch.nn.Module):
    def __init__(self, model: torch.nn.Module, arguments: tuple):
        super().__init__()
        self.model, self.arguments = model, arguments

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given, outputs = iter(tensors), list[Any]()
        filled = _map_leaves(self.arguments, lambda leaf: next(given) if isinstance(leaf, torch.Tensor) else leaf)
        _map_leaves(self.model(*filled), outputs.append)
        for leaf in outputs:
            if not isinstance(leaf, torch.Tensor):
                raise ValueError(
                    f"The model cannot be traced: its outputs hold {leaf!r}, and only tensors can be counted with. "
                    "Wrap the model in one that returns tensors."
                )
        return tuple(outputs)


def _map_leaves(tree: Any, function: Callable[[Any], Any]) -> Any:
    """The same structure with ``function`` of each leaf. ``Instances`` come back as dicts, ``Boxes`` as tensors."""
    if isinstance(tree, Boxes):
        return function(tree.tensor)
    if isinstance(tree, Instances):
        tree = tree.get_fields()
    if isinstance(tree, dict):
        return {key: _map_leaves(branch, function) for key, branch in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)([_map_leaves(branch, function) for branch in tree])
    return function(tree)
