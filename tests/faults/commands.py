"""Starts a command of the project in a fork, and ends it at a chosen place: a file operation, a byte, or a moment."""

import json
import os
import resource
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import children

REPOSITORY = Path(__file__).resolve().parents[2]
# What takes seconds to import. The battery does it once; so do the forks of its processes.
HEAVY = (
    *("PADing.engine.main", "PADing.engine.trainer", "PADing.inference", "PADing.generation", "d2zero"),
    *("PADing.data.mini_files", "PADing.data.verify", "PADing.generation.convert", "torch.utils.tensorboard"),
    *(
        "torch._dynamo",
        "torch.optim",
        "PADing.evaluation",
        "PADing.data.check",
        "faster_coco_eval",
        "tests.engine.tiny",
    ),
)


@dataclass(frozen=True)
class Plan:
    """The end of a process.

    Attributes:
        at: the number of the file operation in the watched folder at which it comes, from 1; 0: none.
        how: "kill" (SIGKILL), "term" (SIGTERM), or "write": the process is killed in the middle of the first file that
            becomes longer than ``bytes`` after this operation, as by a power failure.
        record: a file that receives all operations and the processor's seconds of an undisturbed run.
        act: called at the operation in place of a signal.
    """

    at: int = 0
    how: str = "kill"
    bytes: int = 0
    record: Path | None = None
    act: Callable[[], None] | None = None


@dataclass
class _Watch:
    """Counts the file operations below ``folder`` of this process's main thread."""

    folder: str
    plan: Plan
    seen: list[str] = field(default_factory=list)

    def install(self) -> None:
        self.process, self.busy = os.getpid(), False
        sys.addaudithook(self.hear)

    def hear(self, event: str, args: tuple) -> None:
        if event not in _PATHS or self.busy or os.getpid() != self.process:
            return
        if threading.current_thread() is not threading.main_thread():
            return
        path = _PATHS[event](args)
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        self.busy = True
        try:
            path = os.path.abspath(os.fsdecode(path))
            if path == self.folder or path.startswith(self.folder + os.sep):
                self.seen.append(f"{event} {os.path.relpath(path, self.folder)}")
                if len(self.seen) == self.plan.at:
                    self.act()
        finally:
            self.busy = False

    def act(self) -> None:
        if self.plan.act is not None:
            self.plan.act()
        elif self.plan.how == "write":
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.plan.bytes, resource.RLIM_INFINITY))
        else:
            os.kill(self.process, signal.SIGTERM if self.plan.how == "term" else signal.SIGKILL)


def _opened(args: tuple):
    path, mode, flags = args
    writes = mode is not None and set(mode) & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    return path if writes else None


_PATHS: dict[str, Callable[[tuple], object]] = {
    "open": _opened,
    **{name: lambda args: args[0] for name in ("os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod")},
    "os.rename": lambda args: args[1],
}


class Run:
    """A command in a fork.

    Args:
        words: of the command line, without ``python``; a script is relative to the repository.
        log: receives what it prints.
        environ: variables to set, or to remove if None.
        cwd: where it runs.
        watch: the folder that the plan counts file operations in.
        before: called in the process first.
        fresh: start a new interpreter, which takes seconds.
    """

    def __init__(
        self,
        words: Sequence[object],
        log: Path,
        *,
        environ: Mapping[str, str | None] | None = None,
        cwd: Path = REPOSITORY,
        watch: Path | None = None,
        plan: Plan | None = None,
        before: Callable[[], None] | None = None,
        fresh: bool = False,
    ):
        self.fresh = fresh
        self.words, self.log = [str(word) for word in words], log
        self.environ, self.cwd, self.watch, self.plan, self.before = environ or {}, cwd, watch, plan, before
        self.process = children.fork(self._run, log)

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{' '.join(self.words[:2] if self.words[0] == '-m' else self.words[:1])} (log {self.log})"

    def _run(self) -> int:
        os.chdir(self.cwd)
        for name, value in self.environ.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        if self.fresh:
            if self.before is not None:
                self.before()
            first = ["-m", self.words[1]] if self.words[0] == "-m" else [str(REPOSITORY / self.words[0])]
            os.environ["PYTHONPATH"] = str(REPOSITORY)
            os.execv(sys.executable, [sys.executable, *first, *self.words[2 if self.words[0] == "-m" else 1 :]])
        if "DETECTRON2_DATASETS" in self.environ:
            from PADing.data.registration import register_builtin

            register_builtin()
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
        for number in (signal.SIGINT, signal.SIGTERM):  # a shell that runs the battery in the background ignores them
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        if self.before is not None:
            self.before()
        watch = _Watch(os.path.abspath(self.watch or self.cwd), self.plan or Plan())
        if self.plan is not None:
            watch.install()
        status = self._start()
        if self.plan is not None and self.plan.record is not None:
            watch.busy = True
            self.plan.record.write_text(json.dumps({"operations": watch.seen, "seconds": time.process_time()}))
        return status

    def _start(self) -> int:
        sys.argv = self.words[1:] if self.words[0] in ("-m", "-c") else self.words
        try:
            if self.words[0] == "-m":
                runpy.run_module(self.words[1], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(str(REPOSITORY / self.words[0]), run_name="__main__")
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        return 0

    def end(self, seconds: float = 90) -> int:
        """The exit status, negative for a signal."""
        status = children.wait(self.process, seconds)
        assert status is not None, f"{self.name} has no end after {seconds:.0f} s: {self.tail()}"
        return status

    @contextmanager
    def held(self) -> Iterator[None]:
        """Stop the process during the block, if it has not ended."""
        os.kill(self.process, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process, signal.SIGCONT)

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def tail(self) -> str:
        return self.output()[-1200:]

    def succeed(self, seconds: float = 90) -> str:
        """The output of a run that must succeed."""
        status = self.end(seconds)
        assert status == 0, f"{self.name} ends with status {status}: {self.tail()}"
        return self.output()

    def refuse(self, *texts: str, seconds: float = 90) -> str:
        """The message of a run that must end in one clear message, which has one of ``texts``."""
        status = self.end(seconds)
        assert status == 2, f"{self.name} ends with status {status}, not with a message: {self.tail()}"
        return self.refuse_ended(*texts)

    def refuse_ended(self, *texts: str) -> str:
        """As ``refuse``, of a run that has ended with status 2."""
        output = self.output()
        assert "Traceback (most recent" not in output, f"there is a traceback: {self.tail()}"
        message = output.rpartition("\nerror: ")[2]
        assert message != output, f"there is no message: {self.tail()}"
        assert not texts or any(text in message for text in texts), f"the message is another: {message[:600]}"
        return message
