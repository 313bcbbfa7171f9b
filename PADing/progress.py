"""One progress bar at the lower end of the terminal; what is logged or printed appears above it.

Nothing is shown outside of ``on_terminal``, so library code may open bars anywhere.
"""

import logging
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TextIO

from tqdm import tqdm

_COLUMNS = 80  # of a terminal that does not say its width
_MARGIN = 3  # columns at the right, so that the ^C which a terminal prints does not begin another line


class Bar(tqdm):
    """A bar with the number of images a second, and with words that are made when it is drawn.

    Args:
        what: is done, such as "training".
        total: steps.
        done: steps of an earlier run.
        words: makes what stands behind the number of steps, such as losses.
    """

    monitor_interval = 0  # no thread: every step may draw

    def __init__(self, what: str, total: int, done: int = 0, words: Callable[[], str] = str):
        self.images, self.words, self.covered, self._stack = 0, words, False, ExitStack()
        layout = "{desc} {n_fmt}/{total_fmt} {words}eta {remaining}, {speed} images/s |{bar}|"
        super().__init__(
            desc=what, total=total, initial=done, file=sys.stderr, leave=False, nrows=20, bar_format=layout,
            mininterval=0.2, miniters=1, disable=False,
        )  # fmt: skip
        self._stack.enter_context(_lines_above(self))

    @property
    def format_dict(self) -> dict[str, Any]:
        """What the line says."""
        values = super().format_dict
        done, seconds = values["n"] - values["initial"], values["elapsed"]
        rate = values["rate"] or (done / seconds if seconds else 0)
        images = rate * self.images / done if done else 0
        return {**values, "ncols": self._width(), "words": self.words(), "speed": f"{images:.3g}"}

    def _width(self) -> int:
        try:
            columns = os.get_terminal_size(self.fp.fileno()).columns  # now: the window may have changed
        except OSError:
            columns = 0
        return max((columns or _COLUMNS) - _MARGIN, 1)

    @staticmethod
    def status_printer(file: TextIO) -> Callable[[str], None]:
        """A function that replaces the line; it empties the line first, however long it has been."""

        def show(text: str) -> None:
            file.write(f"\r\x1b[2K{text}")
            file.flush()

        return show

    def step(self, images: int) -> None:
        """One step is done, with ``images`` images in all processes."""
        self.images += images
        self.update()

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Draw the line, unless somebody else has begun one."""
        return False if self.covered else super().display(msg, pos)

    def close(self) -> None:
        """Remove the bar from the terminal."""
        super().close()
        self._stack.close()


class _Above:
    """A stream to the terminal; what is written to it appears above the bar."""

    def __init__(self, stream: TextIO, bar: Bar):
        self._stream, self._bar, self._owner = stream, bar, os.getpid()

    def write(self, text: str) -> int:
        if self._bar.disable or not text:  # the bar is closed
            return self._stream.write(text)
        with self._bar.get_lock():
            if not self._bar.covered:
                self._bar.clear(nolock=True)
            count = self._stream.write(text)
            self._stream.flush()
            self._bar.covered = not text.endswith("\n")
            if os.getpid() == self._owner:  # no data-loading worker, which does not know how far the training is
                self._bar.refresh(nolock=True)
        return count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _lines_above(bar: Bar) -> Iterator[None]:
    """Inside, what is printed or logged to the terminal appears above the bar."""
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    handlers = {handler for one in loggers if isinstance(one, logging.Logger) for handler in one.handlers}
    with ExitStack() as undo:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            above: Any = _Above(stream, bar)
            for handler in handlers:  # those that have looked up the stream before
                if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
                    handler.setStream(above)
                    undo.callback(handler.setStream, stream)
            setattr(sys, name, above)
            undo.callback(setattr, sys, name, stream)
        yield


def fits_terminal() -> bool:
    """Whether a bar can be shown here: a terminal that can redraw a line, and no ``TQDM_DISABLE`` or ``CI``.

    Nor is there one if standard output is a pipe, as in ``| tee log``: its lines come to the same terminal, but not
    from here.
    """
    if any(os.environ.get(name, "").lower() not in ("", "0", "false") for name in ("TQDM_DISABLE", "CI")):
        return False
    try:
        piped = stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)
        return sys.stderr.isatty() and not piped and os.environ.get("TERM", "dumb") != "dumb"
    except (AttributeError, OSError, ValueError):  # no standard streams, or closed ones
        return False


class _Terminal:
    """The bar that is on the terminal, if bars are shown at all."""

    shows = False
    bar: Bar | None = None


@contextmanager
def on_terminal(wanted: bool) -> Iterator[None]:
    """Inside, ``show_bar`` shows bars if ``wanted``; afterwards the terminal is clean, whatever has happened."""
    before, _Terminal.shows = _Terminal.shows, wanted
    try:
        yield
    finally:
        close_bar()
        _Terminal.shows = before


def show_bar(what: str, total: int, done: int = 0, words: Callable[[], str] = str) -> Bar | None:
    """Show a bar (see ``Bar``) in place of the one that is there; None if no bars are shown."""
    close_bar()
    if _Terminal.shows:
        _Terminal.bar = Bar(what, total, done, words)
    return _Terminal.bar


def shown_bar() -> Bar | None:
    """The bar that is on the terminal; None if there is none."""
    return _Terminal.bar


def close_bar() -> None:
    """Remove the bar from the terminal, if there is one."""
    bar, _Terminal.bar = _Terminal.bar, None
    if bar is not None:
        bar.close()
