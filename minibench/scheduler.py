"""Runs steps side by side, each in a process of its own, until all are done or wait for one that failed."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minibench.display import Display
from minibench.methods import REPOSITORY
from minibench.remaining import TimeLeft
from minibench.steps import Step
from PADing.engine.progress import Progress, read_progress

# Seconds between looks at the children, between notes of how long they have run, and to end before being killed.
LOOK, NOTE, GRACE = 0.2, 10.0, 5.0


@dataclass(frozen=True)
class Failure:
    """A step that failed, and its last words."""

    step: Step
    status: int
    error: str


class Running:
    """A step's process; its output goes to the step's log, and what it tells of its progress to ``progress``."""

    def __init__(self, step: Step, threads: int, keep_open: Sequence[int] = ()):
        self.step, self.started, self.noted = step, time.monotonic(), time.monotonic()
        self.progress: Progress | None = None
        self.last_line = self.error = ""
        step.log.parent.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join(filter(None, [step.env.get("PYTHONPATH"), os.environ.get("PYTHONPATH")]))
        counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        environment = {**os.environ, **step.env, **counts, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}
        if not path:
            del environment["PYTHONPATH"]
        self.process = subprocess.Popen(
            step.command,
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # A session of its own: Ctrl-C reaches this process alone, which then ends its children in order.
            start_new_session=True,
            preexec_fn=_end_with_parent,
            pass_fds=tuple(keep_open),
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def _read(self) -> None:
        with open(self.step.log, "a", encoding="utf-8") as log:
            for line in self.process.stdout:
                log.write(line)
                log.flush()
                self.progress = read_progress(line) or self.progress
                if line.strip():
                    self.last_line = line.strip()
                if line.startswith("error:") or "Error: " in line:
                    self.error = line.strip()

    def signal(self, number: int) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass


def run_steps(steps: Sequence[Step], jobs: int, display: Display, keep_open: Sequence[int] = ()) -> list[Failure]:
    """Run what is not done yet, at most ``jobs`` at a time; those that most work waits for come first.

    A failed step ends what waits for it, not the others. An exception (Ctrl-C) ends all children before it passes.

    Args:
        steps: in an order in which each stands behind what it needs.
        jobs: each process gets its share of the cores as threads, or ``OMP_NUM_THREADS`` if that is less.
        keep_open: file descriptors that the processes inherit (a lock).

    Returns:
        the failures; what waited for them has not run.
    """
    done = {step.name for step in steps if step.done()}
    waiting = [step for step in steps if step.name not in done]
    threads = max(1, min(cores() // jobs, _threads_wanted()))
    left = TimeLeft(steps, jobs)
    running: list[Running] = []
    failures: list[Failure] = []
    try:
        while waiting or running:
            for ended in [r for r in running if r.process.poll() is not None]:
                running.remove(ended)
                ended.reader.join()
                failure = _end(ended, display)
                if failure:
                    failures.append(failure)
                else:
                    done.add(ended.step.name)
            ready = [step for step in waiting if done.issuperset(step.needs)]
            ready.sort(key=left.waiting_for, reverse=True)
            for step in ready[: jobs - len(running)]:
                waiting.remove(step)
                if step.complete():
                    failure = _finish(step, 0.0, display)
                    if failure:
                        failures.append(failure)
                    else:
                        done.add(step.name)
                    continue
                step.prepare()
                display.started(step)
                running.append(Running(step, threads, keep_open))
            if not running and not any(done.issuperset(step.needs) for step in waiting):
                break
            for child in running:
                if time.monotonic() - child.noted > NOTE:
                    child.noted = time.monotonic()
                    child.step.tick(child.seconds)
            display.show(len(done), len(steps), running, left.seconds(done, running))
            time.sleep(LOOK)
    finally:
        _end_all(running)
    return failures


def _end(ended: Running, display: Display) -> Failure | None:
    step, status = ended.step, ended.process.returncode
    if status == 0:
        return _finish(step, ended.seconds, display)
    step.fail(ended.seconds)
    failure = Failure(step, status, ended.error or ended.last_line or "it said nothing")
    display.failed(failure)
    return failure


def _finish(step: Step, seconds: float, display: Display) -> Failure | None:
    """What is left to do after a command that ended well; its files can still be unfit."""
    try:
        step.finish(seconds)
        problem = "" if step.done() else "it ended well, but its results are missing"
    except Exception as error:  # what one method has written must not end the others
        problem = f"what it has written cannot be used: {type(error).__name__}: {error}"
    if not problem:
        display.finished(step, seconds)
        return None
    step.fail(seconds)
    failure = Failure(step, 0, problem)
    display.failed(failure)
    return failure


def _end_all(running: Sequence[Running]) -> None:
    for child in running:
        child.signal(signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    for child in running:
        try:
            child.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.signal(signal.SIGKILL)
            child.process.wait()
        child.step.tick(child.seconds)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threads_wanted() -> int:
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() else sys.maxsize


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _end_with_parent() -> None:
    # On Linux the kernel kills a child whose parent is killed. Elsewhere it goes on and holds the folder's lock.
    if _libc is not None:
        _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Lock:
    """One benchmark at a time may write to a folder. Children inherit the lock, so one that outlives us holds it.

    Raises:
        BlockingIOError: at entry, when somebody else still has it after ``patience`` seconds.
    """

    def __init__(self, path: Path, patience: float = 10.0):
        self.path, self.patience = path, patience

    def __enter__(self) -> int:
        import fcntl

        self.file = open(self.path, "w")
        deadline = time.monotonic() + self.patience
        while True:
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return self.file.fileno()
            except BlockingIOError:
                if time.monotonic() > deadline:
                    self.file.close()
                    raise
                time.sleep(0.2)

    def __exit__(self, *_) -> None:
        self.file.close()
