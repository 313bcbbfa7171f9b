"""Ctrl-C and SIGTERM: a training stops when its iteration is done and saved, everything else stops at once.

A second signal ends the process on the spot. In a job of several processes the first one of a machine passes signals on
to the others, and all stop behind the same iteration.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.util import Finalize
from select import select
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from PADing.command_line import STATUS_USER_ERROR
from PADing.engine.checkpointer import TrainingCheckpointer
from PADing.errors import Interrupted

# Launchers send a signal twice (once by themselves, once through the terminal), so the second one must come later.
AGAIN = 2.0
# Launchers also send SIGTERM to the rest of a job when one process has failed. Then the end of the iteration may never
# come, because it waits for that process. Seconds until this process ends without it; torchrun kills after 30.
GRACE = 15.0
END = 0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# What the first process of a job sends to the others -> what it was sent. Without POSIX, Python deals with signals.
RELAYS: dict[int, int] = {}
if os.name == "posix":
    RELAYS = {signal.SIGUSR1: signal.SIGINT, signal.SIGUSR2: signal.SIGTERM}


class StopSignals:
    """What asks this process to stop: ``number``, the signal that has come; 0 before.

    With ``deferred`` it is only noted, and whoever set this looks at ``number`` (or ``agreed()``) in time; else it
    raises ``Interrupted`` in the main thread.
    """

    def __init__(self):
        self.number, self.deferred, self.watching = 0, False, False
        self._safe = threading.Event()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """In the main thread, signals mean what the head of this file says; those the shell switched off stay off."""
        if not RELAYS or threading.current_thread() is not threading.main_thread() or self.watching:
            yield
            return
        wanted = [n for n in (*STOP_SIGNALS, *RELAYS) if signal.getsignal(n) != signal.SIG_IGN]
        self.number, self.deferred, self.watching = 0, False, True
        self._safe.clear()
        self._process = os.getpid()
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        before = {n: signal.signal(n, self._note) for n in wanted}
        wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        guard = threading.Thread(target=self._guard, args=(reader, set(wanted)), daemon=True)
        guard.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, *RELAYS})  # see ``relayed_stop_signals``
        try:
            yield
        finally:
            self.number, self.deferred, self.watching = 0, False, False
            signal.set_wakeup_fd(wakeup)
            for n, handler in before.items():
                signal.signal(n, handler)
            os.write(writer, bytes([END]))  # closing is not enough: workers have the pipe, too
            guard.join()
            os.close(writer)
            os.close(reader)

    def agreed(self) -> int:
        """The signal that any process of the job has got; all processes have to ask together."""
        if not self.watching or comm.get_world_size() == 1:
            return self.number
        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        number = torch.tensor(self.number, device=device)
        torch.distributed.all_reduce(number, op=torch.distributed.ReduceOp.MAX)
        return int(number)

    def settled(self) -> None:
        """The end of the iteration was reached: what is left to do, such as saving, may take its time."""
        self._safe.set()

    def _note(self, number: int, frame) -> None:
        if os.getpid() != self._process:
            return  # a data-loading worker, which has inherited this; the process that it works for will end it
        first = not self.number
        self.number = self.number or RELAYS.get(number, number)
        if first and not self.deferred:
            raise Interrupted(self.number)

    def _guard(self, reader: int, wanted: set[int]) -> None:
        # A thread of its own, because a handler has to wait while the main thread is inside a long computation or
        # waits for another process.
        first, came = 0, 0.0  # the first signal, and when
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
            if number not in wanted:
                continue
            several = comm.get_world_size() > 1
            if not first:
                first, came = RELAYS.get(number, number), now
                deadline = now + GRACE if several and number == signal.SIGTERM else None
            elif number in RELAYS:
                deadline = None  # the SIGTERM before was meant for the whole job
            elif not several or now - came > AGAIN:
                self._end(first)

    @staticmethod
    def _end(number: int) -> None:
        os.write(2, b"\nEnded at once. What the last message about a checkpoint names is saved.\n")
        os._exit(128 + number)


STOP = StopSignals()


@contextmanager
def without_stop_signals() -> Iterator[None]:
    """Data-loading workers forked inside never get Ctrl-C or SIGTERM, and are killed when this process ends."""
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
            # Runs before the end that multiprocessing has for them, which is SIGTERM and then waiting without a limit.
            Finalize(None, _kill, (workers,), exitpriority=100)


def _kill(workers: Sequence[multiprocessing.Process]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler takes a killed worker for a failure
    for worker in workers:
        if worker.is_alive():
            worker.kill()


@contextmanager
def relayed_stop_signals() -> Iterator[None]:
    """For the process that starts the others of a job and waits for them: it passes on what it is told.

    Raises ``Interrupted`` when the others have ended by a signal, and ``ProcessExitedException`` by a mistake.
    """
    if not RELAYS or threading.current_thread() is not threading.main_thread():
        yield
        return
    relays = {number: relay for relay, number in RELAYS.items()}
    came: list[int] = []
    wanted = {n for n in STOP_SIGNALS if signal.getsignal(n) != signal.SIG_IGN}

    def relay(number: int, _=None) -> None:
        came.append(number)
        for process in multiprocessing.active_children():
            if process.pid:
                os.kill(process.pid, relays[number])

    def wait_for_keyboard() -> None:
        while (number := signal.sigwait(held)) not in RELAYS:
            relay(number)

    # Ctrl-C is held back, because the others inherit that: it must not hit them before they can deal with it. They get
    # it from here, by way of a thread, or of the handler where some library's thread lets the signal in.
    held = {signal.SIGINT, *RELAYS} & {*wanted, *RELAYS}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    keyboard = threading.Thread(target=wait_for_keyboard, daemon=True)
    keyboard.start()
    handlers = {n: signal.signal(n, relay) for n in wanted}
    try:
        yield
    except ProcessExitedException as error:
        # Those that stop end with the signal's status. A mistake, such as a full disk under the checkpoint, must show.
        if not came or error.exit_code == STATUS_USER_ERROR:
            raise
    except ProcessRaisedException:
        if not came:  # else it may have lost a process that stopped before it
            raise
    finally:
        for n, handler in handlers.items():
            signal.signal(n, handler)
        assert keyboard.ident is not None  # it has been started
        signal.pthread_kill(keyboard.ident, relays[signal.SIGINT])
        keyboard.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if came:
        raise Interrupted(came[0], told=True)


class StopHook(HookBase):
    """Lets every iteration come to its end, and asks behind it whether to stop. Its place is before long hooks."""

    trainer: Any  # a PADing.engine.trainer.Trainer

    def before_step(self) -> None:
        """From here on a signal is only noted."""
        STOP.deferred = True

    def after_step(self) -> None:
        """Stop here, if a signal has come."""
        self.trainer.stop_if_asked()
        STOP.deferred = False


def explain_stop(number: int, checkpointer: TrainingCheckpointer, total: int) -> str:
    """One line: which signal has stopped a training of ``total`` iterations, what is saved, how to continue."""
    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    saved, again = checkpointer.last_iteration + 1, "run the same command with --resume"
    if saved >= total:
        return f"Stopped by {name}. All {total} iterations are done and saved, but not evaluated: {again}."
    if not saved:
        return f"Stopped by {name} before the first iteration was done. Nothing is saved."
    file = checkpointer.get_checkpoint_file()
    return f"Stopped by {name}. {saved} of {total} iterations are saved in {file}. To continue, {again}."


if hasattr(os, "register_at_fork"):  # what a worker gets is no message for the process that it works for
    os.register_at_fork(after_in_child=lambda: STOP.watching and signal.set_wakeup_fd(-1))
