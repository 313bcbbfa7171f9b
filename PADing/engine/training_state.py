"""The state of a training in a checkpoint: the states of all processes, and a check of the state in a file."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor

from PADing.engine.rng import preserved_rng, rng_state, set_rng_state
from PADing.engine.sharding import gather_states
from PADing.engine.stream import StreamLoader
from PADing.errors import UserError

logger = logging.getLogger(__name__)


class RankStates:
    """Random generators and data positions of all processes, as one entry of a checkpoint.

    Only the main process writes checkpoints, so all processes call ``collect`` before. It also collects the states of
    ``optimizers`` that the processes share.
    """

    def __init__(self, data_loader: Any, optimizers: Iterable[torch.optim.Optimizer] = ()):
        self.data_loader, self.optimizers = data_loader, tuple(optimizers)
        self._states: list[dict[str, Any]] = []
        self._loaded: list[dict[str, Any]] = []
        self.collected = -1

    def collect(self, iteration: int) -> None:
        """Gather the states after an iteration, unless they are gathered already."""
        if self.collected != iteration:
            self.collected = iteration
            self._states = comm.gather(self._own())
            gather_states(self.optimizers)

    def _own(self) -> dict[str, Any]:
        own: dict[str, Any] = {"rng": rng_state()}
        if isinstance(self.data_loader, StreamLoader):
            own["data"] = self.data_loader.state_dict()
        return own

    def state_dict(self) -> dict[str, Any]:
        """The collected states: ``{"ranks": [one dict per process]}``."""
        return {"ranks": self._states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Store the states for ``restore``; ValueError if they have another structure."""
        self._states = self._loaded = list(state["ranks"])
        own = self._own()
        for number, rank in enumerate(self._loaded):
            # Set the state as a trial: the generators accept or refuse it as a whole.
            with preserved_rng():
                set_rng_state(rank["rng"])
            place = _difference(rank.get("data", {}), own.get("data", {}), f"ranks[{number}].data")
            if "data" in rank and place:
                raise ValueError(f"{place} has another type than needed")

    def restore(self, start_iter: int, images_per_iteration: int) -> None:
        """Set data stream and random generators to where the stopped run left them.

        With another number of processes, the data stream skips the images that were used, and the generators are not
        restored.
        """
        loader, loaded, rank = self.data_loader, self._loaded, comm.get_rank()
        complete = len(loaded) == comm.get_world_size()
        if not isinstance(loader, StreamLoader):
            if start_iter:
                logger.info("The data loader cannot be resumed, so the data order starts again.")
        elif complete and "data" in loaded[rank]:
            loader.load_state_dict(loaded[rank]["data"])
        elif start_iter:
            # Another number of processes, or another program's checkpoint: skip the images that have been used.
            if loaded and "data" in loaded[0]:
                loader.stream.reseed(loaded[0]["data"]["seed"])
            loader.sampler.next = rank + start_iter * images_per_iteration
        if complete:
            set_rng_state(loaded[rank]["rng"])
        elif loaded:
            logger.info("The checkpoint has %d processes, so random generators are not restored.", len(loaded))


@contextmanager
def guarded_state(parts: Mapping[str, Any], file: str) -> Iterator[None]:
    """For a block that loads the state of ``parts`` from ``file``; UserError if the state does not fit.

    Optimizers and schedulers accept nearly any state and fail at their next step. So each value of a state must have
    the type after the block that it had before.
    """
    before = {name: part.state_dict() for name, part in parts.items()}
    try:
        yield
        for name, part in parts.items():
            place = _difference(part.state_dict(), before[name], name) or _misfit(part, name)
            if place:
                raise ValueError(f"{place} has another type than needed")
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:  # each part raises other types
        cure = "Start again in another OUTPUT_DIR, or restore the settings of that run (config.yaml beside it)."
        problem = f"a training with other settings wrote it ({short_reason(error)})"
        raise UserError(f"{file} cannot be resumed: {problem}. {cure}") from error


def short_reason(error: Exception) -> str:
    """The first line of an exception's message, at most 300 characters."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _difference(found: Any, before: Any, place: str) -> str:
    """The first place in nested dicts and lists where ``found`` has another type than ``before``; "" if none has."""
    if isinstance(before, Mapping) and isinstance(found, Mapping):
        # Keys of ``found`` alone are allowed: an optimizer has no state before its first step.
        places = (_difference(found.get(key), value, f"{place}.{key}") for key, value in before.items())
        return next(filter(None, places), "")
    if isinstance(before, list | tuple):
        if not isinstance(found, list | tuple) or before and len(found) != len(before):
            return place
        places = (_difference(*pair, f"{place}[{i}]") for i, pair in enumerate(zip(found, before, strict=False)))
        return next(filter(None, places), "")
    if isinstance(before, bool) or before is None:
        return ""  # depending on its version, torch sets switches to None, False or True
    kind = (int, float) if isinstance(before, float) else Mapping if isinstance(before, Mapping) else type(before)
    fits = isinstance(found, kind) and not (isinstance(before, int | float) and isinstance(found, bool))
    return "" if fits else place


def _misfit(part: Any, place: str) -> str:
    """The first entry in the state of an optimizer that is missing or does not fit its parameter; "" if all fit."""
    if not isinstance(part, torch.optim.Optimizer):
        return ""
    needed = {name for state in part.state.values() if isinstance(state, Mapping) for name in state}
    for parameter, state in part.state.items():
        if not isinstance(state, Mapping) or state.keys() != needed:
            return f"{place}.state"
        for name, value in state.items():
            fits = isinstance(value, Tensor) and value.shape in (parameter.shape, ())
            # Older versions of torch store the step as a number, and None if SGD has no momentum.
            number = name == "step" and type(value) in (int, float)
            if not (fits or number or name == "momentum_buffer" and value is None):
                return f"{place}.state.{name}"
    return ""
