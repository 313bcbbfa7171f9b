"""The state of a training in a checkpoint: the states of all processes, and a check of the state in a file."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor

from PADing.engine.rng import derived_rng_state, preserved_rng, rng_state, set_rng_state
from PADing.engine.sharding import gather_states
from PADing.engine.shares import Shares
from PADing.engine.stream import StreamLoader
from PADing.errors import UserError

logger = logging.getLogger(__name__)

_SHARE = 0x5348  # so that the numbers are not those of an image, which depend on the seed and a position


class RankStates:
    """Random generators and data positions of all shares of the batch, as one entry of a checkpoint.

    A share is the part of a process, see ``PADing.engine.shares``. Only the main process writes checkpoints, so all
    processes call ``collect`` before. It also collects the states of ``optimizers`` that the processes share.
    """

    def __init__(self, data_loader: Any, optimizers: Iterable[torch.optim.Optimizer] = ()):
        self.data_loader, self.optimizers = data_loader, tuple(optimizers)
        self.shares = Shares()
        self._states: list[dict[str, Any]] = []
        self._loaded: list[dict[str, Any]] = []
        self.collected = -1

    def collect(self, iteration: int) -> None:
        """Gather the states after an iteration, unless they are gathered already."""
        if self.collected != iteration:
            self.collected = iteration
            # Processes are in the order of their shares.
            self._states = [state for states in comm.gather(self._own()) for state in states]
            gather_states(self.optimizers)

    def _own(self) -> list[dict[str, Any]]:
        generators = [rng_state()] if self.shares.one_each else self.shares.generators
        if not isinstance(self.data_loader, StreamLoader):
            return [{"rng": state} for state in generators]
        data = self.data_loader.state_dicts()
        return [{"rng": state, "data": place} for state, place in zip(generators, data, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """The collected states: ``{"ranks": [one dict per share]}``."""
        return {"ranks": self._states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Store the states for ``restore``; ValueError if they have another structure."""
        self._states = self._loaded = list(state["ranks"])
        own = self._own()[0]
        for number, rank in enumerate(self._loaded):
            # Set the state as a trial: the generators accept or refuse it as a whole.
            with preserved_rng():
                set_rng_state(rank["rng"])
            place = _difference(rank.get("data", {}), own.get("data", {}), f"ranks[{number}].data")
            if "data" in rank and place:
                raise ValueError(f"{place} has another type than needed")

    @property
    def recorded(self) -> int:
        """The number of shares of the loaded checkpoint; 0 without one, or if it does not hold all positions."""
        return len(self._loaded) if self._loaded and all("data" in state for state in self._loaded) else 0

    def restore(self, start_iter: int, images_per_iteration: int, shares: Shares) -> None:
        """Set data stream and random generators to where the stopped run left them, and split the batch into shares.

        With as many shares as before, everything is as before, whatever the number of processes. Otherwise the unused
        images are dealt out anew, and the generators start from the seed, the iteration and the share's number.
        """
        loader, loaded, self.shares = self.data_loader, self._loaded, shares
        complete = len(loaded) == shares.number
        if not isinstance(loader, StreamLoader):
            if start_iter:
                logger.info("The data loader cannot be resumed, so the data order starts again.")
            if complete:
                set_rng_state(loaded[comm.get_rank()]["rng"])
            return
        loader.split(shares)
        if self.recorded:
            loader.load_state_dicts([state["data"] for state in loaded])
        elif start_iter:  # another program's checkpoint
            loader.skip(start_iter * images_per_iteration)
        if loaded and not complete:
            logger.info("The batch was split into %d shares and is split into %d now, so random generators start "
                        "anew.", len(loaded), shares.number)  # fmt: skip
        if complete:
            generators = [loaded[share]["rng"] for share in shares.own]
        else:
            entropy = loader.stream.seed, start_iter, _SHARE
            generators = [derived_rng_state(*entropy, share) for share in shares.own]
            if not start_iter and 0 in shares.own:
                generators[0] = rng_state()  # as it was seeded
        if shares.one_each:
            set_rng_state(generators[0])
        shares.generators = generators


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
