"""Scalars and images of a running training, and where they are written."""

import datetime
import json
import logging
import os
import time
from collections import defaultdict
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import torch
from detectron2.utils.file_io import PathManager
from fvcore.common.history_buffer import HistoryBuffer

__all__ = [
    "get_event_storage",
    "has_event_storage",
    "EventStorage",
    "EventWriter",
    "JSONWriter",
    "TensorboardXWriter",
    "CommonMetricPrinter",
]

_CURRENT_STORAGE_STACK: list["EventStorage"] = []


def get_event_storage() -> "EventStorage":
    """The storage of the innermost ``with EventStorage(...)``; AssertionError outside of any."""
    assert _CURRENT_STORAGE_STACK, (
        "get_event_storage() has to be called inside a 'with EventStorage(...)' context, as a trainer provides it."
    )
    return _CURRENT_STORAGE_STACK[-1]


def has_event_storage() -> bool:
    """Whether :func:`get_event_storage` would find one."""
    return bool(_CURRENT_STORAGE_STACK)


class EventStorage:
    """Collects scalars by name and iteration. Use as a context manager; contexts nest.

    Args:
        start_iter: iteration of the first values.
    """

    def __init__(self, start_iter: int = 0):
        self._history: dict[str, HistoryBuffer] = defaultdict(HistoryBuffer)
        self._smoothing_hints: dict[str, bool] = {}
        self._latest_scalars: dict[str, tuple[float, int]] = {}
        self._iter = start_iter
        self._current_prefix = ""
        self._vis_data: list = []
        self._histograms: list = []

    @property
    def iter(self) -> int:
        """The current iteration; the trainer sets it."""
        return self._iter

    @iter.setter
    def iter(self, value: int) -> None:
        self._iter = int(value)

    @property
    def iteration(self) -> int:
        """Another name of :attr:`iter`."""
        return self._iter

    def step(self) -> None:
        """Go to the next iteration. Trainers set :attr:`iter` instead."""
        self._iter += 1

    def put_scalar(
        self, name: str, value: float | torch.Tensor, smoothing_hint: bool = True, cur_iter: int | None = None
    ) -> None:
        """Add one value.

        Args:
            name: gets the current name scope as prefix.
            value: anything that ``float`` accepts.
            smoothing_hint: whether writers should show this scalar smoothed. Must not change for a name.
            cur_iter: iteration to file it under, by default the current one.

        Raises:
            AssertionError: the hint differs from that of the first value.
        """
        name = self._current_prefix + name
        cur_iter = self._iter if cur_iter is None else cur_iter
        value = float(value)
        self._history[name].update(value, cur_iter)
        self._latest_scalars[name] = (value, cur_iter)
        known = self._smoothing_hints.setdefault(name, smoothing_hint)
        assert known == smoothing_hint, f"Scalar {name} was put with a different smoothing_hint!"

    def put_scalars(self, *, smoothing_hint: bool = True, cur_iter: int | None = None, **kwargs) -> None:
        """Add several values: ``put_scalars(loss=loss, accuracy=accuracy)``."""
        for name, value in kwargs.items():
            self.put_scalar(name, value, smoothing_hint=smoothing_hint, cur_iter=cur_iter)

    def put_image(self, img_name: str, img_tensor: torch.Tensor | np.ndarray) -> None:
        """Keep an image, (3, H, W), float in [0, 1] or uint8, RGB, until a writer has written it."""
        self._vis_data.append((img_name, img_tensor, self._iter))

    def put_histogram(self, hist_name: str, hist_tensor: torch.Tensor, bins: int = 1000) -> None:
        """Keep a histogram of a tensor's values until a writer has written it."""
        low, high = hist_tensor.min().item(), hist_tensor.max().item()
        counts = torch.histc(hist_tensor.float(), bins=bins)
        edges = torch.linspace(start=low, end=high, steps=bins + 1, dtype=torch.float32)
        self._histograms.append(
            {
                "tag": hist_name,
                "min": low,
                "max": high,
                "num": len(hist_tensor),
                "sum": float(hist_tensor.sum()),
                "sum_squares": float(torch.sum(hist_tensor**2)),
                "bucket_limits": edges[1:].tolist(),
                "bucket_counts": counts.tolist(),
                "global_step": self._iter,
            }
        )

    def history(self, name: str) -> HistoryBuffer:
        """All values of one scalar; KeyError when there are none."""
        if name not in self._history:
            raise KeyError(f"No history metric available for {name}!")
        return self._history[name]

    def histories(self) -> dict[str, HistoryBuffer]:
        """All values of all scalars."""
        return self._history

    def latest(self) -> dict[str, tuple[float, int]]:
        """The last value of each scalar, and the iteration it is from."""
        return self._latest_scalars

    def latest_with_smoothing_hint(self, window_size: int = 20) -> dict[str, tuple[float, int]]:
        """Like :meth:`latest`, but with the median of the last ``window_size`` values where the hint asks for it.

        The window never reaches back before the last ``window_size`` iterations.
        """
        return {
            name: (
                self._history[name].median(self.count_samples(name, window_size))
                if self._smoothing_hints[name]
                else value,
                iteration,
            )
            for name, (value, iteration) in self._latest_scalars.items()
        }

    def count_samples(self, name: str, window_size: int = 20) -> int:
        """How many values of a scalar are from the last ``window_size`` iterations up to its latest one."""
        values = self._history[name].values()
        newest = self._latest_scalars[name][1]
        count = 0
        for _, iteration in reversed(values):
            if iteration <= newest - window_size:
                break
            count += 1
        return count

    def smoothing_hints(self) -> dict[str, bool]:
        """Scalar name -> whether to show it smoothed."""
        return self._smoothing_hints

    @contextmanager
    def name_scope(self, name: str):
        """Within it, names of new scalars get the prefix ``name/``."""
        previous = self._current_prefix
        self._current_prefix = name.rstrip("/") + "/"
        try:
            yield
        finally:
            self._current_prefix = previous

    def clear_images(self) -> None:
        """Forget the images; writers call it after writing them."""
        self._vis_data = []

    def clear_histograms(self) -> None:
        """Forget the histograms; writers call it after writing them."""
        self._histograms = []

    def __enter__(self) -> "EventStorage":
        _CURRENT_STORAGE_STACK.append(self)
        return self

    def __exit__(self, exc_type, exc_val, exc_tb) -> None:
        assert _CURRENT_STORAGE_STACK[-1] is self
        _CURRENT_STORAGE_STACK.pop()


class EventWriter:
    """Base of what reads the current :class:`EventStorage` now and then and puts it somewhere."""

    def write(self) -> None:
        """Read the storage and write what is new."""
        raise NotImplementedError

    def close(self) -> None:
        """Release files."""


class JSONWriter(EventWriter):
    """Appends to a file one line per iteration that has new values: a JSON object with sorted keys and "iteration".

    Args:
        json_file: path; an existing file is continued.
        window_size: median over at most so many values, for scalars that want smoothing.
    """

    def __init__(self, json_file: str, window_size: int = 20):
        self._file = PathManager.open(json_file, "a")
        self._window_size = window_size
        self._last_write = -1

    def write(self) -> None:
        storage = get_event_storage()
        lines: dict[int, dict] = defaultdict(dict)
        for name, (value, iteration) in storage.latest_with_smoothing_hint(self._window_size).items():
            if iteration > self._last_write:
                lines[iteration][name] = float(value)
        if lines:
            self._last_write = max(lines)
        for iteration, scalars in lines.items():
            scalars["iteration"] = iteration
            self._file.write(json.dumps(scalars, sort_keys=True) + "\n")
        self._file.flush()
        try:
            os.fsync(self._file.fileno())
        except (AttributeError, OSError):  # not a file of the operating system
            pass

    def close(self) -> None:
        self._file.close()


class TensorboardXWriter(EventWriter):
    """Writes scalars, images and histograms as TensorBoard event files.

    Args:
        log_dir: folder of the event files; made, with the first file, at the first write.
        window_size: as in :class:`JSONWriter`.
        kwargs: further arguments of ``torch.utils.tensorboard.SummaryWriter``.
    """

    def __init__(self, log_dir: str, window_size: int = 20, **kwargs):
        self._window_size = window_size
        self._writer_args = {"log_dir": log_dir, **kwargs}
        self._last_write = -1

    @cached_property
    def _writer(self):
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(**self._writer_args)

    def write(self) -> None:
        storage = get_event_storage()
        newest = self._last_write
        for name, (value, iteration) in storage.latest_with_smoothing_hint(self._window_size).items():
            if iteration > self._last_write:
                self._writer.add_scalar(name, value, iteration)
                newest = max(newest, iteration)
        self._last_write = newest
        for name, image, iteration in storage._vis_data:
            self._writer.add_image(name, image, iteration)
        storage.clear_images()
        for histogram in storage._histograms:
            self._writer.add_histogram_raw(**histogram)
        storage.clear_histograms()

    def close(self) -> None:
        if "_writer" in self.__dict__:  # nothing to close when nothing was written
            self._writer.close()


class CommonMetricPrinter(EventWriter):
    """Logs one line for humans: time left, iteration, losses, times, learning rate, memory.

    Args:
        max_iter: last iteration plus one, for the time left; None leaves that out.
        window_size: as in :class:`JSONWriter`.
    """

    def __init__(self, max_iter: int | None = None, window_size: int = 20):
        self.logger = logging.getLogger("detectron2.utils.events")
        self._max_iter = max_iter
        self._window_size = window_size
        self._last_write: tuple[int, float] | None = None  # iteration and time, when there is no timer

    def _get_eta(self, storage: EventStorage) -> str | None:
        if self._max_iter is None:
            return ""
        remaining = self._max_iter - storage.iter - 1
        try:
            seconds = storage.history("time").median(1000) * remaining
            storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
            return str(datetime.timedelta(seconds=int(seconds)))
        except KeyError:
            pass
        # No trainer measures the time: estimate it from the last two calls.
        eta = None
        if self._last_write is not None:
            per_iter = (time.perf_counter() - self._last_write[1]) / max(storage.iter - self._last_write[0], 1)
            eta = str(datetime.timedelta(seconds=int(per_iter * remaining)))
        self._last_write = (storage.iter, time.perf_counter())
        return eta

    def write(self) -> None:
        storage = get_event_storage()
        iteration = storage.iter
        if iteration == self._max_iter:
            # Called once more after the last iteration; the last line is written already.
            return

        def describe(label: str, name: str, value) -> str:
            try:
                return f"{label}: {value(storage.history(name)):.4g}  "
            except KeyError:  # the first iterations have no times
                return ""

        def window(name: str) -> int:
            return storage.count_samples(name, self._window_size)

        eta = self._get_eta(storage)
        losses = "  ".join(
            f"{name}: {history.median(window(name)):.4g}"
            for name, history in storage.histories().items()
            if "loss" in name
        )
        times = (
            describe("time", "time", lambda h: h.global_avg())
            + describe("last_time", "time", lambda h: h.latest())
            + describe("data_time", "data_time", lambda h: h.avg(window("data_time")))
            + describe("last_data_time", "data_time", lambda h: h.latest())
        )
        lr = f"{storage.history('lr').latest():.5g}" if "lr" in storage.histories() else "N/A"
        memory = f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M" if torch.cuda.is_available() else ""
        self.logger.info(
            " {eta}iter: {iter}  {losses}  {times} lr: {lr}  {memory}".format(
                eta=f"eta: {eta}  " if eta else "", iter=iteration, losses=losses, times=times, lr=lr, memory=memory
            )
        )
