"""Progress on the screen: one line per event, and a status line."""

import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from minibench.steps import Step, TimeLeft


class Display:
    """Shows progress on a terminal (rewrites one line) or in a log file (one line every ``period`` seconds).

    Args:
        commands: show the command of each step, so that you can repeat it by hand.
    """

    def __init__(self, stream: TextIO | None = None, period: float = 60.0, commands: bool = False):
        self.stream = sys.stderr if stream is None else stream
        self.terminal, self.commands = self.stream.isatty(), commands
        self._erase = "\r\x1b[K" if self.terminal else ""
        self.period = 0.5 if self.terminal else period
        self._shown = time.monotonic() - self.period + min(self.period, 5.0)

    def line(self, text: str) -> None:
        """Print a line that stays."""
        print(f"{self._erase}{text}", file=self.stream, flush=True)

    def started(self, step: Step) -> None:
        """Print that a step begins."""
        self.line(f"start    {step.name}")
        if self.commands:
            environment = shlex.join(f"{name}={value}" for name, value in step.env.items())
            self.line(f"         $ {environment} {shlex.join(['python', *step.command[1:]])}")

    def show(self, running: Sequence[tuple[Step, float]], time_left: TimeLeft) -> None:
        """Print the status line, unless the last one is too recent; arguments as for ``TimeLeft.seconds``."""
        if time.monotonic() - self._shown < self.period:
            return
        self._shown = time.monotonic()
        left = f"{duration(time_left.seconds(running))} left"
        done = f"{len(time_left.done)}/{len(time_left.steps)} steps"
        text = " | ".join([done, *(_state(step, seconds) for step, seconds in running), left])
        width = shutil.get_terminal_size().columns - 1
        if self.terminal and len(text) > width:
            text = text[: max(width - len(left) - 4, 0)] + "... " + left
        print(f"{self._erase}{text}", end="" if self.terminal else "\n", file=self.stream, flush=True)


def _state(step: Step, seconds: float) -> str:
    progress = step.progress()
    if progress is None or progress.done >= progress.total:
        return f"{step.name} {'evaluates' if progress else duration(seconds)}"
    losses = "".join(f", {name} {value:.3g}" for name, value in progress.losses.items())
    return f"{step.name} iteration {progress.done}/{progress.total}{losses}"


def duration(seconds: float) -> str:
    """A time as text: 42 s, 7 min, 2.3 h."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
