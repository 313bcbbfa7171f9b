"""The state of a training in a checkpoint: that of every process, and a check of what a file holds in its place."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor

from PADing.engine.rng import preserved_rng, rng_state, set_rng_state
from PADing.engine.stream import StreamLoader
from PADing.errors import UserError

logger = logging.getLogger(__name__)


class RankStates:
    """Random generators and data position of every process, as one entry of a checkpoint.

    Only the main process writes checkpoints, so all processes call ``collect`` just before.
    """

    def __init__(self, data_loader: Any):
        self.data_loader = data_loader
        self._states: list[dict[str, Any]] = []
        self._loaded: list[dict[str, Any]] = []
        self.collected = -1

    def collect(self, iteration: int) -> None:
        """Gather the states behind an iteration, unless that has been done."""
        if self.collected != iteration:
            self.collected = iteration
            self._states = comm.gather(self._own())

    def _own(self) -> dict[str, Any]:
        own: dict[str, Any] = {"rng": rng_state()}
        if isinstance(self.data_loader, StreamLoader):
            own["data"] = self.data_loader.state_dict()
        return own

    def state_dict(self) -> dict[str, Any]:
        """What was collected."""
        return {"ranks": self._states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep the states for ``restore``; ValueError if they are of another kind."""
        self._states = self._loaded = list(state["ranks"])
        own = self._own()
        for number, rank in enumerate(self._loaded):
            # A state of the generators is taken or refused as a whole, so this is the one way to know.
            with preserved_rng():
                set_rng_state(rank["rng"])
            place = _difference(rank.get("data", {}), own.get("data", {}), f"ranks[{number}].data")
            if "data" in rank and place:
                raise ValueError(f"{place} is of another kind than needed")

    def restore(self, start_iter: int, images_per_iteration: int) -> None:
        """Put data stream and random generators where the stopped run left them, if the processes are as many."""
        loader, loaded, rank = self.data_loader, self._loaded, comm.get_rank()
        complete = len(loaded) == comm.get_world_size()
        if not isinstance(loader, StreamLoader):
            if start_iter:
                logger.info("The data loader cannot be placed, so the data order begins anew.")
        elif complete and "data" in loaded[rank]:
            loader.load_state_dict(loaded[rank]["data"])
        elif start_iter:
            # Another number of processes, or another program's checkpoint: skip as many images as have been used.
            if loaded and "data" in loaded[0]:
                loader.stream.reseed(loaded[0]["data"]["seed"])
            loader.sampler.next = rank + start_iter * images_per_iteration
        if complete:
            set_rng_state(loaded[rank]["rng"])
        elif loaded:
            logger.info("The checkpoint is of %d processes, so random generators are not restored.", len(loaded))


@contextmanager
def guarded_state(parts: Mapping[str, Any], file: str) -> Iterator[None]:
    """Inside, ``load_state_dict`` of ``parts`` is called with what ``file`` holds; UserError if that does not fit.

    Optimizers and schedulers take nearly anything and fail at their next step; so afterwards each value of a state must
    be of the kind that it was before.
    """
    before = {name: part.state_dict() for name, part in parts.items()}
    try:
        yield
        for name, part in parts.items():
            place = _difference(part.state_dict(), before[name], name) or _misfit(part, name)
            if place:
                raise ValueError(f"{place} is of another kind than needed")
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:  # each part has its own way to refuse
        cure = "Start afresh in another OUTPUT_DIR, or restore the settings of that run (config.yaml beside it)."
        problem = f"it was written by a training with other settings ({short_reason(error)})"
        raise UserError(f"{file} cannot be resumed: {problem}. {cure}") from error


def short_reason(error: Exception) -> str:
    """The first line of what an exception says, of bounded length."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _difference(found: Any, before: Any, place: str) -> str:
    """The first place in nested dicts and lists where ``found`` has another kind of value than ``before``; "": none."""
    if isinstance(before, Mapping) and isinstance(found, Mapping):
        # An optimizer has no state of its own before its first step.
        places = (_difference(found.get(key), value, f"{place}.{key}") for key, value in before.items())
        return next(filter(None, places), "")
    if isinstance(before, list | tuple):
        if not isinstance(found, list | tuple) or before and len(found) != len(before):
            return place
        places = (_difference(*pair, f"{place}[{i}]") for i, pair in enumerate(zip(found, before, strict=False)))
        return next(filter(None, places), "")
    if isinstance(before, bool) or before is None:
        return ""  # switches, which versions of torch set to None, False or True
    kind = (int, float) if isinstance(before, float) else Mapping if isinstance(before, Mapping) else type(before)
    fits = isinstance(found, kind) and not (isinstance(before, int | float) and isinstance(found, bool))
    return "" if fits else place


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
