"""Ctrl-C, SIGTERM and notices in a job of several processes, for the process that starts the others and waits for them.

It passes a signal on. If the job does not end by it, because an iteration waits for a process that is gone, or if a
second signal comes, this process ends the others.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from PADing.command_line import STATUS_USER_ERROR
from PADing.engine import interruption
from PADing.engine.interruption import AGAIN, RELAYS, STOP_SIGNALS
from PADing.errors import Interrupted
from PADing.requeue import NOTICES

# Seconds between SIGTERM and SIGKILL for processes that are ended. SIGTERM is a second signal for them.
LAST = 3.0
POLL = 0.2


def shared_patience() -> Any:
    """A number for ``StopSignals.patience`` in all processes of a job, to be passed to them when they are started."""
    return multiprocessing.get_context("spawn").RawValue("d", interruption.GRACE)


@contextmanager
def relayed_stop_signals(patience: Any = None, saved: Callable[[], str] = str) -> Iterator[None]:
    """Pass signals on to the other processes of a job, in the process that starts them and waits for them.

    Args:
        patience: from ``shared_patience``; its ``value`` is the number of seconds that the job has to end after a
            signal. None: ``GRACE``.
        saved: gives a sentence on what is saved, for the message when the job has not ended by itself.

    Raises:
        Interrupted: the others have ended by a signal.
        ProcessExitedException: one of them has ended by a mistake.
    """
    if not RELAYS or threading.current_thread() is not threading.main_thread():
        yield
        return
    relay = _Relay(patience or shared_patience(), saved)
    wanted = {n for n in STOP_SIGNALS if n in NOTICES or signal.getsignal(n) != signal.SIG_IGN}

    def wait_for_keyboard() -> None:
        while (number := signal.sigwait(held)) not in RELAYS:
            relay(number)

    # Ctrl-C and notices, which may be sent to all processes of a job, are blocked, and the other processes inherit
    # that, so that they cannot be hit before they have a handler.
    # The thread below passes it on, or the handler does if a library's thread receives the signal.
    held = {signal.SIGINT, *NOTICES, *RELAYS} & {*wanted, *RELAYS}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    keyboard = threading.Thread(target=wait_for_keyboard, daemon=True)
    guard = threading.Thread(target=relay.watch, daemon=True)
    for thread in (keyboard, guard):
        thread.start()
    handlers = {n: signal.signal(n, relay) for n in wanted}
    try:
        yield
    except ProcessExitedException as error:
        # A stopped process ends with the signal's status. A mistake, such as a full disk, must be reported.
        if not relay.first or error.exit_code == STATUS_USER_ERROR:
            raise
    except ProcessRaisedException:
        if not relay.first:  # after a signal, the process may have failed because another one stopped first
            raise
    finally:
        for n, handler in handlers.items():
            signal.signal(n, handler)
        assert keyboard.ident is not None
        signal.pthread_kill(keyboard.ident, relay.numbers[signal.SIGINT])
        relay.over.set()
        for thread in (keyboard, guard):
            thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if relay.first:
        raise Interrupted(relay.first, told=True)


class _Relay:
    """Signal handler that passes signals on; ``watch`` runs beside it in a thread.

    Attributes:
        first: the first signal that has come; 0 if none.
        over: set when the job has ended.
    """

    numbers = {number: relay for relay, number in RELAYS.items()}

    def __init__(self, patience: Any, saved: Callable[[], str]):
        self.first, self.over = 0, threading.Event()
        self._patience, self._saved = patience, saved
        self._asked, self._came, self._second = 0, 0.0, 0  # the first that is no notice, its time; another one

    def __call__(self, number: int, _=None) -> None:
        # No locks here: a signal may interrupt the handler of another one.
        self.first = self.first or number
        if number in NOTICES:
            pass
        elif not self._asked:
            self._came, self._asked = time.monotonic(), number
        elif time.monotonic() - self._came > AGAIN:
            self._second = number
        for process in multiprocessing.active_children():
            with suppress(ProcessLookupError):
                if process.pid:
                    os.kill(process.pid, self.numbers.get(number, number))

    def watch(self) -> None:
        """Wait for the end of the job; end it after a second signal, or when it takes too long after the first."""
        while not self.over.wait(POLL):
            waited = time.monotonic() - self._came
            if self._second:
                return self._end("Ended at once by a second signal.")
            if self._asked and waited > self._patience.value:
                reason = f"The job has not stopped {waited:.0f} seconds after {_name(self._asked)}, so it is ended now."
                return self._end(reason)

    def _end(self, reason: str) -> None:
        os.write(2, f"\n{reason} {self._saved()}".rstrip().encode() + b"\n")
        for act in (multiprocessing.Process.terminate, multiprocessing.Process.kill):
            for process in multiprocessing.active_children():
                act(process)
            if self.over.wait(LAST):
                return


def _name(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
