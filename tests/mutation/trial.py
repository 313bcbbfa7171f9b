"""Runs tests against a mutant, in a fork of this process, without changing a file."""

import contextlib
import importlib.util
import os
import resource
import signal
import sys
import time
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path

# Seconds of processor time beyond four times that of the tests as they are; then the mutant counts as noticed.
MORE = 15
# Seconds of the clock without any processor time, after which a mutant counts as one that waits for ever.
IDLE = 90
HEAVY = """
    torch numpy scipy.optimize scipy.stats PIL.Image cv2 yaml pycocotools.coco panopticapi.evaluation
    fvcore.common.config detectron2.data detectron2.engine detectron2.modeling detectron2.checkpoint
    detectron2.evaluation pytest _pytest.assertion
""".split()
PASSED, FAILED, INTERRUPTED = 0, 1, 2  # statuses of pytest; a test file that cannot be imported gives the third


class TestsFail(Exception):
    """The tests do not pass without a mutant, or cannot be run."""


def import_heavy_packages() -> None:
    """What tests import and no mutant changes; a fork has it without waiting."""
    for name in HEAVY:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    wrong = [name for name in sys.modules if name.partition(".")[0] == "PADing"]
    assert not wrong, f"these cannot be mutated any more: {wrong}"


def normal_time(root: Path, tests: list[str], log: Path) -> float:
    """Processor time in seconds of tests that pass; TestsFail otherwise."""
    status, used = _in_fork(root, tests, log, None, 3600)
    if status != PASSED:
        raise TestsFail(f"{' '.join(tests)}: pytest ended with {status} without a mutant; see {log}.")
    return used


def notices(root: Path, tests: list[str], log: Path, module: str, source: str, normal: float) -> str:
    """How the tests take ``source`` in place of ``module``: "test", "import", "crash" or "time"; "" if they pass."""
    status, _ = _in_fork(root, tests, log, (module, source), MORE + 4 * normal)
    if status in (PASSED, FAILED, INTERRUPTED):
        return ("", "test", "import")[status]
    if status > 0:
        raise TestsFail(f"{' '.join(tests)}: pytest ended with {status}; see {log}.")
    return "time" if -status in (signal.SIGXCPU, signal.SIGKILL) else "crash"


def _in_fork(root: Path, tests: list[str], log: Path, mutant: tuple[str, str] | None, seconds: float):
    """Status (negative: the signal that ended it) and processor time of pytest."""
    if not (child := os.fork()):
        _run(root, tests, log, mutant, seconds)
    busy, used = time.monotonic(), 0
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        now = time.monotonic()
        if now - busy > IDLE:
            if (latest := _ticks(child)) == used:
                os.kill(child, signal.SIGKILL)
            busy, used = now, latest
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # processes that the tests have left behind
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime


def _ticks(session: int) -> int:
    """Processor time that the processes of a session have used, in clock ticks; without /proc it always grows."""
    found = list(Path("/proc").glob("[0-9]*/stat"))
    total = 0 if found else int(time.monotonic())
    for path in found:
        with contextlib.suppress(OSError):  # it has just ended
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                total += sum(map(int, fields[11:13]))
    return total


def _run(root: Path, tests: list[str], log: Path, mutant: tuple[str, str] | None, seconds: float) -> None:
    status = INTERRUPTED
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 3))
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1), os.dup2(file, 2)
        os.chdir(root)
        if mutant:
            sys.meta_path.insert(0, _Finder(root, *mutant))
        import pytest

        flags = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow", "--tb=line"]
        status = int(pytest.main([*flags, *tests]))
        sys.stdout.flush()
    finally:
        os._exit(status)


class _Finder(MetaPathFinder):
    def __init__(self, root: Path, module: str, source: str):
        self.name = module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        self.path, self.source = str(root / module), source

    def find_spec(self, fullname: str, path=None, target=None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        loader = _Loader(fullname, self.path)
        loader.source = self.source
        return importlib.util.spec_from_file_location(fullname, self.path, loader=loader)


class _Loader(SourceFileLoader):
    source: str

    def get_code(self, fullname: str):
        return compile(self.source, self.path, "exec")
