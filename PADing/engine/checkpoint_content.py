"""What a checkpoint must hold before it is used: named weights that are numbers, a state that a training can take."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from PADing.errors import UserError, short

__all__ = ["difference", "guarded_state", "short_reason", "weights_problem", "wrong_kinds"]


def weights_problem(content: Any) -> str:
    """The end of a sentence "<file> cannot be used: ..." about what a file holds; "" if that is a dict of weights.

    Args:
        content: with the weights under ``model``.
    """
    weights = content.get("model") if isinstance(content, dict) else content
    if not isinstance(weights, Mapping):
        return f"it holds a {type(weights).__name__} in place of named weights"
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, Tensor | np.ndarray):
            return f"its weight {short(name)} is a {type(value).__name__}, not a named tensor"
        if isinstance(value, Tensor) and (value.is_meta or value.is_quantized or value.layout != torch.strided):
            return f"its weight {name} is quantized, sparse, or without values"
        if _has_nan(torch.as_tensor(value)):
            return f"its weight {name} holds NaN, so the training that wrote it had failed. Use an earlier checkpoint"
    return ""


def _has_nan(value: Tensor) -> bool:
    # An expanded tensor of a crafted file may have more elements than there is memory.
    held = value.untyped_storage().nbytes()
    return value.is_floating_point() and value.nbytes <= held and bool(value.isnan().any())


def wrong_kinds(found: Mapping[str, Tensor | np.ndarray], needed: Mapping[str, Tensor]) -> list[str]:
    """Names of weights that are real in the model, and whole numbers, truth values or complex in the file."""
    return [
        name
        for name, value in found.items()
        if name in needed and needed[name].is_floating_point() and not torch.as_tensor(value).is_floating_point()
    ]


@contextmanager
def guarded_state(parts: Mapping[str, Any], file: str) -> Iterator[None]:
    """Inside, ``load_state_dict`` of ``parts`` is called with what ``file`` holds.

    Optimizers and schedulers take nearly anything and fail at their next step; so afterwards each value of a state must
    be of the kind that it was before.

    Raises:
        UserError: the state is that of a training with other settings, or damaged.
    """
    before = {name: part.state_dict() for name, part in parts.items()}
    try:
        yield
        for name, part in parts.items():
            place = difference(part.state_dict(), before[name], name) or _misfit(part, name)
            if place:
                raise ValueError(f"{place} is of another kind than needed")
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:  # each part has its own way to refuse
        raise UserError(
            f"{file} cannot be resumed: it was written by a training with other settings ({short_reason(error)}). "
            "Start afresh in another OUTPUT_DIR, or restore the settings of that run (config.yaml beside it)."
        ) from error


def short_reason(error: Exception) -> str:
    """The first line of what an exception says, of bounded length."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def difference(found: Any, before: Any, place: str) -> str:
    """The first place in nested dicts and lists where ``found`` has another kind of value than ``before``; "": none."""
    if isinstance(before, Mapping):
        if not isinstance(found, Mapping):
            return place
        # An optimizer has no state of its own before its first step.
        places = (difference(found.get(key), value, f"{place}.{key}") for key, value in before.items())
        return next(filter(None, places), "")
    if isinstance(before, list | tuple):
        if not isinstance(found, list | tuple) or before and len(found) != len(before):
            return place
        places = (difference(*pair, f"{place}[{i}]") for i, pair in enumerate(zip(found, before, strict=False)))
        return next(filter(None, places), "")
    if isinstance(before, bool) or before is None:
        return ""  # switches, which versions of torch set to None, False or True
    if isinstance(before, int | float):
        whole = isinstance(before, int) and not isinstance(found, int)
        return place if isinstance(found, bool) or not isinstance(found, int | float) or whole else ""
    return "" if isinstance(found, type(before)) else place


def _misfit(part: Any, place: str) -> str:
    """The first entry in the state of an optimizer that its parameter has no use for, or lacks; "" if all is well."""
    if not isinstance(part, torch.optim.Optimizer):
        return ""
    needed = {name for state in part.state.values() if isinstance(state, Mapping) for name in state}
    for parameter, state in part.state.items():
        if not isinstance(state, Mapping) or state.keys() != needed:
            return f"{place}.state"
        for name, value in state.items():
            fits = isinstance(value, Tensor) and value.shape in (parameter.shape, ())
            # Older versions of torch hold the step as a number, and None where SGD has no momentum.
            number = name == "step" and type(value) in (int, float)
            if not (fits or number or name == "momentum_buffer" and value is None):
                return f"{place}.state.{name}"
    return ""
