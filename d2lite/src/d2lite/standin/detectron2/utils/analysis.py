"""Counting parameters, floating point operations and activations, by fvcore."""

from __future__ import annotations

import typing
from collections import defaultdict

from detectron2.structures import Instances
from fvcore.nn import (
    ActivationCountAnalysis,
    activation_count,
    flop_count_table,
    parameter_count,
    parameter_count_table,
)
from fvcore.nn import FlopCountAnalysis as _FlopCountAnalysis
from torch import Tensor, nn

from d2lite.omitted import omitted_names

__all__ = [
    "ActivationCountAnalysis",
    "FlopCountAnalysis",
    "activation_count_operators",
    "flop_count_table",
    "parameter_count",
    "parameter_count_table",
]


class FlopCountAnalysis(_FlopCountAnalysis):
    """fvcore's count of multiply-adds, for models that take a list of dicts as Detectron2's do.

    Args:
        model: in evaluation mode for the cost of inference.
        inputs: the one argument of the model, e.g. ``[{"image": tensor (3, H, W)}]``, or a tuple of arguments. Tensors
            in nested lists, tuples and dicts are found; anything else in there is passed on as it is.
    """

    def __init__(self, model: nn.Module, inputs: typing.Any):
        inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        super().__init__(_TensorsOnly(model, inputs), tuple(_tensors(inputs)))


def activation_count_operators(model: nn.Module, inputs: list, **kwargs) -> defaultdict[str, float]:
    """Millions of elements in the outputs of each kind of operator that computes, e.g. ``{"conv": 1.5}``.

    Args:
        model: brought into evaluation mode.
        inputs: a batch of one, of which only ``image`` is used.
        kwargs: further arguments of fvcore's ``activation_count``.
    """
    assert len(inputs) == 1, "Please use batch size=1"
    inputs = ([{"image": inputs[0]["image"]}],)
    counts, _ = activation_count(_TensorsOnly(model.eval(), inputs), tuple(_tensors(inputs)), **kwargs)
    return counts


class _TensorsOnly(nn.Module):
    """A model as a function from tensors to tensors, as tracing wants it."""

    def __init__(self, model: nn.Module, inputs: tuple):
        super().__init__()
        self.model = model
        self.inputs = inputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        outputs = self.model(*_replace(self.inputs, iter(tensors)))
        return tuple(_tensors(outputs))


def _tensors(x: typing.Any) -> list[Tensor]:
    """All tensors in nested lists, tuples and dicts, and the fields of Instances."""
    if isinstance(x, Tensor):
        return [x]
    if isinstance(x, Instances):
        return [t for value in x.get_fields().values() for t in _tensors(getattr(value, "tensor", value))]
    if isinstance(x, dict):
        return [t for value in x.values() for t in _tensors(value)]
    if isinstance(x, (list, tuple)):
        return [t for value in x for t in _tensors(value)]
    return []


def _replace(x: typing.Any, tensors: typing.Iterator[Tensor]) -> typing.Any:
    """The same with the tensors replaced in order."""
    if isinstance(x, Tensor):
        return next(tensors)
    if isinstance(x, Instances):
        for _ in _tensors(x):  # ground truth stays as it is
            next(tensors)
        return x
    if isinstance(x, dict):
        return {key: _replace(value, tensors) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return type(x)(_replace(value, tensors) for value in x)
    return x


__getattr__ = omitted_names(__name__, ["find_unused_parameters", "flop_count_operators"])
