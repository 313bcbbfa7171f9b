"""What the person at the keyboard sees: one line per event, and one status line that stays."""

import shutil
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from minibench.steps import Step

if TYPE_CHECKING:
    from minibench.scheduler import Failure, Running


class Display:
    """Progress on a terminal (a line that is rewritten) or in a log file (a line every ``period`` seconds)."""

    def __init__(self, stream: TextIO | None = None, period: float = 60.0):
        self.stream = sys.stderr if stream is None else stream
        self.terminal = self.stream.isatty()
        self.period = 0.5 if self.terminal else period
        self._shown = time.monotonic() - self.period + min(self.period, 5.0)
        self._status = ""

    def line(self, text: str) -> None:
        """A line that stays."""
        self._erase()
        print(text, file=self.stream, flush=True)

    def started(self, step: Step) -> None:
        self.line(f"start    {step.name}")

    def finished(self, step: Step, seconds: float) -> None:
        self.line(f"done     {step.name}  {duration(seconds)}")

    def failed(self, failure: "Failure") -> None:
        self.line(f"FAILED   {failure.step.name}: {failure.error}")

    def show(self, done: int, total: int, running: Sequence["Running"], seconds_left: float) -> None:
        """The status line, unless the last is too recent."""
        if time.monotonic() - self._shown < self.period:
            return
        self._shown = time.monotonic()
        left = f"{duration(seconds_left)} left"
        text = " | ".join([f"{done}/{total} steps", *map(_state, running), left])
        if not self.terminal:
            print(text, file=self.stream, flush=True)
            return
        self._erase()
        width = shutil.get_terminal_size().columns - 1
        self._status = text if len(text) <= width else text[: max(width - len(left) - 4, 0)] + "... " + left
        self.stream.write(self._status)
        self.stream.flush()

    def _erase(self) -> None:
        if self._status:
            self.stream.write("\r" + " " * len(self._status) + "\r")
            self._status = ""


def _state(child: "Running") -> str:
    progress = child.progress
    if progress is None:
        return f"{child.step.name} {duration(child.seconds)}"
    if progress.phase == "evaluation":
        return f"{child.step.name} evaluates {progress.done}/{progress.total}"
    return f"{child.step.name} iteration {progress.done}"


def duration(seconds: float) -> str:
    """A time to read: 45 s, 12 min, 2 h 05 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
