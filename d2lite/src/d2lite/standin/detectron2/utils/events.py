"""Scalars and images of a running training: their storage, and writers of log lines and files."""

import bisect
import contextlib
import functools
import json
import logging
import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from operator import itemgetter

import numpy as np
import torch
from detectron2.utils.file_io import PathManager
from fvcore.common.history_buffer import HistoryBuffer

logger = logging.getLogger(__name__)


class EventStorage:
    """Scalars (by name and iteration) and images of one training; see :func:`get_event_storage`."""

    def __init__(self, start_iter: int = 0):
        self.iter = start_iter  # that values are filed under; set by the trainer
        self._histories: dict[str, HistoryBuffer] = {}
        self._smooth: dict[str, bool] = {}
        self._scope = ""
        self._images: list[tuple] = []

    def __enter__(self) -> "EventStorage":
        _open_storages.append(self)
        return self

    def __exit__(self, *exception) -> None:
        assert _open_storages.pop() is self, "Event storages must be left in the opposite order of entering."

    def put_scalar(self, name: str, value, smoothing_hint: bool = True, cur_iter: int | None = None) -> None:
        """Append a number to a scalar, under the scope's name and its own, by default at the current iteration.

        ``smoothing_hint``: whether people want to see a median, not the last value; AssertionError if it changes.
        """
        name = self._scope + name
        hint = self._smooth.setdefault(name, smoothing_hint)
        assert hint == smoothing_hint, f"{name!r} has been put with smoothing_hint={hint} before."
        history = self._histories.setdefault(name, HistoryBuffer())
        history.update(float(value), self.iter if cur_iter is None else cur_iter)

    def put_scalars(self, *, smoothing_hint: bool = True, cur_iter: int | None = None, **values) -> None:
        """Append a value to each of several scalars."""
        for name in values:
            self.put_scalar(name, values[name], smoothing_hint, cur_iter)

    def put_image(self, img_name: str, img_tensor: torch.Tensor | np.ndarray) -> None:
        """Store an RGB image, 3 x H x W, uint8 or float from 0 to 1, until images are written next."""
        self._images.append((img_name, img_tensor, self.iter))

    def take_images(self) -> list[tuple]:
        """(name, image, iteration) of all images since the last call."""
        images, self._images = self._images, []
        return images

    @contextlib.contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Inside of it, ``name`` and a slash come before the names of scalars; the innermost scope counts."""
        outer, self._scope = self._scope, name.rstrip("/") + "/"
        try:
            yield
        finally:
            self._scope = outer

    def history(self, name: str) -> HistoryBuffer:
        """The values of a scalar; KeyError if there is none of this name."""
        return self._histories[name]

    def histories(self) -> dict[str, HistoryBuffer]:
        """Name -> values."""
        return self._histories

    def latest(self) -> dict[str, tuple[float, int]]:
        """Name -> (last value, its iteration)."""
        return {name: history.values()[-1] for name, history in self._histories.items()}

    def latest_with_smoothing_hint(self, window_size: int = 20) -> dict[str, tuple[float, int]]:
        """Name -> (last value, or median over the last ``window_size`` iterations, as the hint asks; iteration)."""
        shown = self.latest()
        for name in filter(self._smooth.get, shown):
            median = self._histories[name].median(self.count_samples(name, window_size))
            shown[name] = (float(median), shown[name][1])
        return shown

    def count_samples(self, name: str, window_size: int = 20) -> int:
        """How many values a scalar has got in its last ``window_size`` iterations."""
        values = self._histories[name].values()
        return len(values) - bisect.bisect_right(values, values[-1][1] - window_size, key=itemgetter(1))


_open_storages: list[EventStorage] = []


def get_event_storage() -> EventStorage:
    """The storage of the training that is running; AssertionError if none is."""
    assert _open_storages, "No training is running: this needs to be inside of `with EventStorage():`."
    return _open_storages[-1]


class EventWriter:
    """Base of the classes that read the storage from time to time and write what they find."""

    def write(self) -> None:
        """Write what is new in the current storage."""
        raise NotImplementedError

    def close(self) -> None:
        """No more will be written."""


class _FileWriter(EventWriter):
    """Base of writers of files; errors of the operating system and of names are logged once and not raised."""

    def __init__(self, window_size: int):
        self._window, self._written_until = window_size, -1
        self.failed = False

    def _new_scalars(self) -> dict[int, dict[str, float]]:
        """Iteration -> name -> value, of all that has come since the last call; in order of iterations."""
        fresh: dict[int, dict[str, float]] = {}
        for name, (value, iteration) in get_event_storage().latest_with_smoothing_hint(self._window).items():
            if iteration > self._written_until:
                fresh.setdefault(iteration, {})[name] = value
        self._written_until = max(fresh, default=self._written_until)
        return dict(sorted(fresh.items()))

    @contextlib.contextmanager
    def _not_fatal(self, where: str) -> Iterator[None]:
        try:
            yield
        except (OSError, UnicodeError) as error:  # TensorBoard's path must be UTF-8
            if not self.failed:
                logger.warning("Metrics of the training cannot be written to %s (%s); training goes on.", where, error)
            self.failed = True


class JSONWriter(_FileWriter):
    """Appends one JSON object a line and iteration; continues a file, even if it ends with half a line."""

    def __init__(self, json_file: str, window_size: int = 20):
        super().__init__(window_size)
        self._path = json_file
        self._append("")

    def write(self) -> None:
        """Append the new scalars."""
        rows = ({**scalars, "iteration": iteration} for iteration, scalars in self._new_scalars().items())
        self._append("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))

    def _append(self, text: str) -> None:
        with self._not_fatal(self._path), PathManager.open(self._path, "a+b") as file:
            if text and file.tell():
                file.seek(-1, os.SEEK_END)
                text = text if file.read() == b"\n" else "\n" + text
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())


class TensorboardXWriter(_FileWriter):
    """Writes scalars and images for TensorBoard; nothing is created before there is something to write.

    After a failure it writes no more: an event file with a gap cannot be read on. ``kwargs`` are ``SummaryWriter``'s.
    """

    def __init__(self, log_dir: str, window_size: int = 20, **kwargs):
        super().__init__(window_size)
        self._folder, self._options = log_dir, kwargs

    @functools.cached_property
    def _writer(self):
        from torch.utils.tensorboard import SummaryWriter

        _silence_tensorboard()
        return SummaryWriter(self._folder, **self._options)

    def write(self) -> None:
        """Write the new scalars and images."""
        scalars, images = self._new_scalars(), get_event_storage().take_images()
        if self.failed:
            return
        with self._not_fatal(self._folder):
            for iteration, values in scalars.items():
                for name, value in values.items():
                    self._writer.add_scalar(name, value, iteration)
            for image in images:
                self._writer.add_image(*image)

    def close(self) -> None:
        """Close the event file."""
        if "_writer" in vars(self) and not self.failed:
            with self._not_fatal(self._folder):
                self._writer.close()


@functools.cache
def _silence_tensorboard() -> None:
    """Suppress the traceback of TensorBoard's thread; the calling thread gets the same error."""
    show = threading.excepthook

    def show_others(args) -> None:
        if not (issubclass(args.exc_type, OSError) and type(args.thread).__module__.startswith("tensorboard.")):
            show(args)

    threading.excepthook = show_others


class CommonMetricPrinter(EventWriter):
    """Logs a readable line: time left, iteration, losses, seconds per iteration, learning rate, GPU memory.

    Puts the scalar ``eta_seconds`` if ``max_iter`` is given. Losses are medians over ``window_size`` iterations.
    """

    def __init__(self, max_iter: int | None = None, window_size: int = 20):
        self._max_iter, self._window = max_iter, window_size

    def write(self) -> None:
        """Log the line."""
        storage = get_event_storage()
        if storage.iter != self._max_iter:  # else the training is over, and its last line has been logged
            logger.info(" %s", "  ".join(self._parts(storage)))

    def _parts(self, storage: EventStorage) -> Iterator[str]:
        histories = storage.histories()
        if "time" in histories and self._max_iter is not None:
            seconds = float(histories["time"].median(1000)) * (self._max_iter - 1 - storage.iter)
            storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
            yield f"eta: {timedelta(seconds=int(min(seconds, timedelta.max.total_seconds() / 2)))}"
        yield f"iter: {storage.iter}"
        for name in histories:
            if "loss" in name:
                yield f"{name}: {histories[name].median(storage.count_samples(name, self._window)):.4g}"
        for name in ("time", "data_time"):
            if name in histories:
                # Slow workers make data times uneven, which a mean over the whole training would hide.
                recent = histories[name].avg(storage.count_samples(name, self._window))
                mean = histories[name].global_avg() if name == "time" else recent
                yield f"{name}: {mean:.4f}  last_{name}: {histories[name].latest():.4f}"
        yield f" lr: {histories['lr'].latest():.5g}" if "lr" in histories else " lr: N/A"
        if torch.cuda.is_available():
            yield f"max_mem: {torch.cuda.max_memory_allocated() // 2**20}M"
