"""Runs steps in parallel processes until all are done or need a step that failed."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from minibench.display import Display, duration
from minibench.steps import Step, TimeLeft
from PADing.errors import Interrupted
from PADing.files import REPOSITORY

# Seconds between checks of the processes, between records of their time, and to save before they are killed.
LOOK, NOTE, GRACE = 0.2, 10.0, 30.0
# Bytes at the end of a failed step's log that are searched for its error.
LAST_WORDS = 2**14
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Failure:
    """A step that failed: its exit status, its error, and the end of its output."""

    step: Step
    status: int
    error: str
    output: str = ""


class Process:
    """A running step that writes to its log. ``threads``: for numerical libraries; None: as in the environment."""

    def __init__(self, step: Step, threads: int | None = None):
        self.step, self.started, self.noted = step, time.monotonic(), time.monotonic()
        environment = {**os.environ, **step.env, "PYTHONUNBUFFERED": "1"}
        if path := [p for p in (step.env.get("PYTHONPATH"), os.environ.get("PYTHONPATH")) if p]:
            environment["PYTHONPATH"] = os.pathsep.join(path)
        if threads is not None:
            environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        step.log.parent.mkdir(parents=True, exist_ok=True)
        with open(step.log, "ab") as log:
            self._output_from = log.tell()
            self.process = subprocess.Popen(
                step.command,
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A new session: Ctrl-C reaches the parent only, which then ends its children in order.
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    @property
    def seconds(self) -> float:
        """Seconds since it started."""
        return time.monotonic() - self.started

    def failure(self) -> Failure:
        """The failure of an ended process."""
        with open(self.step.log, "rb") as log:
            log.seek(max(self._output_from, log.seek(0, os.SEEK_END) - LAST_WORDS))
            lines = [line for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error:") or "Error: " in line]
        error = (errors or lines or ["no output"])[-1].strip()
        return Failure(self.step, self.process.returncode, error, "\n".join(lines[-25:]))


def run_steps(steps: Sequence[Step], jobs: int, display: Display, share_cores: bool = True) -> list[Failure]:
    """Run the steps that are not done, at most ``jobs`` in parallel; those with the longest chain behind them first.

    After a failure, the steps that need the failed one are not run; all others are. An exception, such as
    ``Interrupted`` for Ctrl-C, SIGTERM and a closed terminal, first ends all processes: they get SIGTERM, then have
    ``GRACE`` seconds to save.

    Args:
        steps: each must come after the steps that it needs.
        share_cores: each process gets its share of the cores as threads, or ``OMP_NUM_THREADS`` if that is less.

    Returns:
        the failures.
    """
    left = TimeLeft(steps, jobs)
    waiting = [step for step in steps if step.name not in left.done]
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    most = int(wanted) if wanted.isdigit() else cores()
    threads = max(1, min(cores() // jobs, most)) if share_cores else None
    running: list[Process] = []
    failures: list[Failure] = []

    def ended(step: Step, seconds: float, failure: Failure | None) -> None:
        if failure := failure or _finish(step, seconds):
            step.note("failed", seconds)
            failures.append(failure)
            display.line(f"FAILED   {step.name}: {failure.error}")
        else:
            left.learn(step)
            display.line(f"done     {step.name}  {duration(seconds)}")

    with _interruptions():
        try:
            while waiting or running:
                for child in [r for r in running if r.process.poll() is not None]:
                    running.remove(child)
                    ended(child.step, child.seconds, child.failure() if child.process.returncode else None)
                ready = [step for step in waiting if left.done.issuperset(step.needs)]
                for step in sorted(ready, key=left.waiting_for, reverse=True)[: jobs - len(running)]:
                    waiting.remove(step)
                    step.note("running", 0.0)
                    display.started(step)
                    running.append(Process(step, threads))
                if not running and not ready:
                    break
                for child in running:
                    if time.monotonic() - child.noted > NOTE:
                        child.noted = time.monotonic()
                        child.step.note("running", child.seconds)
                display.show([(child.step, child.seconds) for child in running], left)
                time.sleep(LOOK)
        finally:
            _end_all(running)
    return failures


def _finish(step: Step, seconds: float) -> Failure | None:
    """Finish a step whose command succeeded; its files can still be unusable."""
    try:
        step.note("done", seconds)
        problem = "" if step.done() else "the command succeeded, but its results are missing"
    except Exception as error:  # damaged files of one method must not stop the others
        problem = f"its files cannot be used: {type(error).__name__}: {error}"
    return Failure(step, 0, problem) if problem else None


@contextmanager
def _interruptions() -> Iterator[None]:
    """Context in which SIGINT, SIGTERM and SIGHUP raise ``Interrupted``."""

    def interrupt(number: int, _frame) -> None:
        raise Interrupted(number, told=True)

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]  # nohup
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_all(running: Sequence[Process]) -> None:
    for child in running:
        child.process.terminate()
    deadline = time.monotonic() + GRACE
    for child in running:
        try:
            child.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(child.process.pid, signal.SIGKILL)
            child.process.wait()
        child.step.note("running", child.seconds)


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _end_with_parent() -> None:
    # On Linux the kernel kills the child with its parent. On other systems it continues, and its folder is locked.
    if _libc is not None:
        _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
