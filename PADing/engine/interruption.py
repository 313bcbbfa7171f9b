"""Ctrl-C and SIGTERM: a training stops when its iteration is done and saved; anything else stops at once.

A second signal ends the process at once. In a job of several processes, the first process of a machine passes signals
on to the others, and all stop after the same iteration.
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

# Seconds after which another signal counts as a second one: launchers send each signal twice (once by themselves, once
# through the terminal).
AGAIN = 2.0
# Seconds until a process ends without the end of its iteration. Launchers send SIGTERM to a job when one process has
# failed, and then the iteration may wait for that process forever. torchrun kills after 30 seconds.
GRACE = 15.0
END = 0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Signal that the first process of a job sends to the others -> signal that it got. Not used on Windows.
RELAYS: dict[int, int] = {}
if os.name == "posix":
    RELAYS = {signal.SIGUSR1: signal.SIGINT, signal.SIGUSR2: signal.SIGTERM}


class StopSignals:
    """Handles signals that ask this process to stop.

    Attributes:
        number: the signal that has come; 0 if none.
        deferred: True: a signal only sets ``number``, and the code that set ``deferred`` must look at ``number`` (or
            ``agreed()``). False: a signal raises ``Interrupted`` in the main thread.
        watching: whether the process is inside ``watch``.
    """

    def __init__(self):
        self.number, self.deferred, self.watching = 0, False, False
        self._safe = threading.Event()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Inside, the main thread handles signals as the module says; signals that the shell ignores stay ignored."""
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

    def settled(self) -> None:
        """Tell the guard that the iteration is done, so that saving may take longer than ``GRACE``."""
        self._safe.set()

    def _note(self, number: int, frame) -> None:
        if os.getpid() != self._process:
            return  # a data-loading worker inherits this handler; the process that started it will end it
        first = not self.number
        self.number = self.number or RELAYS.get(number, number)
        if first and not self.deferred:
            raise Interrupted(self.number)

    def _guard(self, reader: int, wanted: set[int]) -> None:
        # A separate thread, because a handler cannot run while the main thread computes or waits for another process.
        first, came = 0, 0.0  # the first signal, and its time
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
                deadline = None  # the SIGTERM before this was meant for the whole job
            elif not several or now - came > AGAIN:
                self._end(first)

    @staticmethod
    def _end(number: int) -> None:
        os.write(2, b"\nEnded at once. The last checkpoint that a message names is saved.\n")
        os._exit(128 + number)


STOP = StopSignals()


@contextmanager
def without_stop_signals() -> Iterator[None]:
    """Data-loading workers that are forked inside ignore Ctrl-C and SIGTERM, and are killed when this process ends."""
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


@contextmanager
def relayed_stop_signals() -> Iterator[None]:
    """Pass signals on to the other processes of a job, in the process that starts them and waits for them.

    Raises:
        Interrupted: the others have ended by a signal.
        ProcessExitedException: one of them has ended by a mistake.
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

    # Ctrl-C is blocked, and the other processes inherit that, so that it cannot hit them before they have a handler.
    # The thread below passes it on, or the handler does if a library's thread receives the signal.
    held = {signal.SIGINT, *RELAYS} & {*wanted, *RELAYS}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    keyboard = threading.Thread(target=wait_for_keyboard, daemon=True)
    keyboard.start()
    handlers = {n: signal.signal(n, relay) for n in wanted}
    try:
        yield
    except ProcessExitedException as error:
        # A stopped process ends with the signal's status. A mistake, such as a full disk, must be reported.
        if not came or error.exit_code == STATUS_USER_ERROR:
            raise
    except ProcessRaisedException:
        if not came:  # after a signal, the process may have failed because another one stopped first
            raise
    finally:
        for n, handler in handlers.items():
            signal.signal(n, handler)
        assert keyboard.ident is not None
        signal.pthread_kill(keyboard.ident, relays[signal.SIGINT])
        keyboard.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if came:
        raise Interrupted(came[0], told=True)


class StopHook(HookBase):
    """Lets every iteration finish and then checks whether to stop. It must come before hooks that take long."""

    trainer: Any  # a PADing.engine.trainer.Trainer

    def before_step(self) -> None:
        """Defer signals to the end of the iteration."""
        STOP.deferred = True

    def after_step(self) -> None:
        """Stop here if a signal has come."""
        self.trainer.stop_if_asked()
        STOP.deferred = False


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
