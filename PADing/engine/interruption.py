"""Ctrl-C, SIGTERM and a scheduler's notice: a training stops when its iteration is done and saved, all else at once.

A second Ctrl-C or SIGTERM ends the process at once; a notice (``PADing.requeue``) may come as often as it likes. In a
job of several processes, the one that started the others passes signals on (``PADing.engine.relay``), and all stop
after the same iteration.
"""

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.util import Finalize
from select import select
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm

from PADing.engine.checkpointer import TrainingCheckpointer
from PADing.errors import Interrupted
from PADing.requeue import NOTICES

# Seconds after which another signal counts as a second one: launchers send each signal twice (once by themselves, once
# through the terminal).
AGAIN = 2.0
# Seconds until a process ends without the end of its iteration. Launchers send SIGTERM to a job when one process has
# failed, and then the iteration may wait for that process forever. torchrun kills after 30 seconds.
GRACE = 15.0
END, REPEAT = 0, 255  # for the guard, in place of a signal's number
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, *NOTICES)
# Signal that the first process of a job sends to the others -> signal that it got; a notice is passed on as it is. Not
# used on Windows.
RELAYS: dict[int, int] = {}
if NOTICES:
    RELAYS = {signal.SIGRTMIN + 5: signal.SIGINT, signal.SIGRTMIN + 6: signal.SIGTERM}
elif os.name == "posix":
    RELAYS = {signal.SIGUSR1: signal.SIGINT, signal.SIGUSR2: signal.SIGTERM}


class StopSignals:
    """Handles signals that ask this process to stop.

    Attributes:
        number: the signal that has come; 0 if none.
        deferred: True: a signal only sets ``number``, and the code that set ``deferred`` must look at ``number`` (or
            ``agreed()``). False: a signal raises ``Interrupted`` in the main thread.
        watching: whether the process is inside ``watch``.
        patience: shared with the process that started this one (None: no such process): the seconds that it waits for
            the end of the job after a signal.
    """

    def __init__(self):
        self.number, self.deferred, self.watching = 0, False, False
        self.patience: Any = None
        self._last = 0.0  # seconds of the last iteration
        self._safe = threading.Event()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Inside, the main thread handles signals as the module says; signals that the shell ignores stay ignored."""
        if not RELAYS or threading.current_thread() is not threading.main_thread() or self.watching:
            yield
            return
        # A launcher without a use for notices, such as torchrun, must ignore them, and its children inherit that.
        wanted = [n for n in (*STOP_SIGNALS, *RELAYS) if n in NOTICES or signal.getsignal(n) != signal.SIG_IGN]
        self.number, self.deferred, self.watching = 0, False, True
        self._safe.clear()
        self._process = os.getpid()
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        before = {n: signal.signal(n, self._note) for n in wanted}
        wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        hook, sys.unraisablehook = sys.unraisablehook, partial(self._dropped, sys.unraisablehook, writer)
        guard = threading.Thread(target=self._guard, args=(reader, set(wanted)), daemon=True)
        guard.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, *NOTICES, *RELAYS})  # see ``relayed_stop_signals``
        try:
            yield
        finally:
            self.number, self.deferred, self.watching = 0, False, False
            sys.unraisablehook = hook
            signal.set_wakeup_fd(wakeup)
            for n, handler in before.items():
                signal.signal(n, handler)
            os.write(writer, bytes([END]))  # closing does not end the thread: workers hold the pipe, too
            guard.join()
            os.close(writer)
            os.close(reader)

    def agreed(self) -> int:
        """The signal that any process of the job has got, else 0; all processes must call this together."""
        if not self.watching or comm.get_world_size() == 1:
            return self.number
        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        number = torch.tensor(self.number, device=device)
        torch.distributed.all_reduce(number, op=torch.distributed.ReduceOp.MAX)
        return int(number)

    @property
    def stopping(self) -> bool:
        """Whether a signal has come to this process, or it has agreed with the others to stop."""
        return bool(self.number) or self._safe.is_set()

    def settled(self) -> None:
        """Tell the guard that the iteration is done, so that saving may take longer than ``GRACE``."""
        self._safe.set()
        if self.patience is not None:
            self.patience.value = math.inf

    def took(self, seconds: float) -> None:
        """Ask for time for one more iteration, after one of ``seconds``."""
        self._last = seconds
        if self.patience is not None:
            self.patience.value = max(GRACE, 2 * seconds)

    def _note(self, number: int, frame) -> None:
        if os.getpid() != self._process:
            return  # a data-loading worker inherits this handler; the process that started it will end it
        first = not self.number
        self.number = self.number or RELAYS.get(number, number)
        if first and not self.deferred:
            raise Interrupted(self.number)

    def _dropped(self, others: Callable[[Any], object], writer: int, unraisable: Any) -> None:
        """``sys.unraisablehook``. Python drops exceptions in some places, such as callbacks at a fork, ``__del__``."""
        if not isinstance(unraisable.exc_value, Interrupted):
            others(unraisable)
        elif os.getpid() == self._process:
            os.write(writer, bytes([REPEAT]))

    def _repeat(self) -> int:
        """Send the signal of a dropped ``Interrupted`` again; returns the number that is sent."""
        time.sleep(0.01)  # until the main thread has left that place
        number = self.number
        number = next((relay for relay, meant in RELAYS.items() if meant == number), number)
        self.number = 0
        os.kill(self._process, number)
        return number

    def _guard(self, reader: int, wanted: set[int]) -> None:
        # A separate thread, because a handler cannot run while the main thread computes or waits for another process.
        first, came = 0, 0.0  # the first signal, and the time of the first that is no notice
        repeated = 0
        deadline: float | None = None
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select([reader], [], [], left)[0]:
                if not self._safe.is_set():
                    self._end(first)
                deadline = None
                continue
            number, now = os.read(reader, 1)[0], time.monotonic()
            if number == END:
                return
            if number == REPEAT:
                repeated = self._repeat()
                continue
            if number not in wanted:
                continue
            if number == repeated:  # not another one
                repeated = 0
                continue
            first = first or RELAYS.get(number, number)
            if number in NOTICES:
                continue
            several = comm.get_world_size() > 1
            if not came:
                came = now
                deadline = now + max(GRACE, 2 * self._last) if several and number == signal.SIGTERM else None
            elif number in RELAYS:
                deadline = None  # the SIGTERM before this was meant for the whole job
            elif now - came > AGAIN or not several and number != signal.SIGTERM:
                self._end(first)

    def _end(self, number: int) -> None:
        if self.patience is None:  # otherwise the process that shares it says more
            os.write(2, b"\nEnded at once. The last checkpoint that a message names is saved.\n")
        os._exit(Interrupted(number).status)


STOP = StopSignals()


@contextmanager
def without_stop_signals() -> Iterator[None]:
    """Data-loading workers that are forked inside ignore stop signals, and are killed when this process ends."""
    if not STOP.watching:
        yield
        return
    others = multiprocessing.active_children()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set(STOP_SIGNALS))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        workers = [process for process in multiprocessing.active_children() if process not in others]
        if workers:
            # Runs before multiprocessing's own cleanup, which sends SIGTERM and then waits without a limit.
            Finalize(None, _kill, (workers,), exitpriority=100)


def _kill(workers: Sequence[multiprocessing.Process]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would report a killed worker as a failure
    for worker in workers:
        if worker.is_alive():
            worker.kill()


class StopHook(HookBase):
    """Lets every iteration finish and then checks whether to stop. It must come before hooks that take long."""

    trainer: Any  # a PADing.engine.trainer.Trainer

    def before_step(self) -> None:
        """Defer signals to the end of the iteration."""
        STOP.deferred, self._start = True, time.monotonic()

    def after_step(self) -> None:
        """Stop here if a signal has come."""
        self.trainer.stop_if_asked()
        STOP.took(time.monotonic() - self._start)
        # What comes now, such as an evaluation, may be interrupted if this iteration can be saved afterwards.
        STOP.deferred = self.trainer.ranks.collected != self.trainer.iter


def explain_stop(number: int, checkpointer: TrainingCheckpointer, total: int) -> str:
    """The message for a stopped training of ``total`` iterations: the signal, what is saved, how to continue."""
    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    saved, again = checkpointer.last_iteration + 1, "run the same command with --resume"
    if saved >= total:
        return f"Stopped by {name}. All {total} iterations are done and saved, but not evaluated: {again}."
    if not saved:
        return f"Stopped by {name} before the first iteration was done. Nothing is saved."
    file = checkpointer.get_checkpoint_file()
    return f"Stopped by {name}. {saved} of {total} iterations are saved in {file}. To continue, {again}."


if hasattr(os, "register_at_fork"):  # a worker's signals must not reach its parent through the shared pipe
    os.register_at_fork(after_in_child=lambda: STOP.watching and signal.set_wakeup_fd(-1))
