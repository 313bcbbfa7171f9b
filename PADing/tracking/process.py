"""The training's end of the pipe to a ``worker``: never blocks, never raises, and ends in a bounded time."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from PADing.errors import UserError
from PADing.files import read_json, write_json

logger = logging.getLogger(__name__)

WORKER = Path(__file__).with_name("worker.py")
MOST_WAITING = 20000  # messages that wait for a slow service
RUN_ID = re.compile(r"[\w.: -]{1,300}")


class TrackingProcess:
    """A process that talks to one service. The first failure is logged as a warning; the others are in its log file.

    Args:
        service: "wandb", "mlflow" or "trackio".
        folder: for ``<service>.log``, ``<service>.json`` (the run's id) and the files of the service.
        timeout: seconds that ``close`` waits for the service at most.
    """

    def __init__(self, service: str, folder: Path, timeout: float):
        self.service, self.folder, self.timeout = service, folder, timeout
        self.waiting: deque[bytes] = deque()
        self._rest, self._reports, self._told, self._lost = b"", b"", False, False
        self.process: subprocess.Popen | None = None

    def start(self, run: dict[str, Any], resume: bool) -> None:
        """Start the process, and a run: the one of ``<service>.json`` if ``resume``. See ``worker`` for ``run``."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder / f"{self.service}.log", "ab") as log:
                self.process = subprocess.Popen(
                    [sys.executable, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                    start_new_session=True,
                )  # fmt: skip
            assert self.process.stdin and self.process.stdout
            for end in (self.process.stdin, self.process.stdout):
                os.set_blocking(end.fileno(), False)
        except OSError as error:
            self._tell(f"the process cannot be started ({error})")
            return
        own = {"do": "start", "service": self.service, "folder": str(self.folder.absolute()), "timeout": self.timeout}
        self.send(**own, **run, id=self._former_id() if resume else "")

    def send(self, **message: Any) -> None:
        """Send a message when the process can take it; drop the oldest if too many wait."""
        if self.process is None:
            return
        self.waiting.append(json.dumps(message).encode() + b"\n")
        if len(self.waiting) > MOST_WAITING:
            del self.waiting[1]  # the first one may be the start
            if not self._lost:
                self._lost = True
                logger.warning("%s is too slow, so some of its data are left out; the files of the training have all.",
                               self.service)  # fmt: skip
        self._exchange()

    def close(self, complete: bool) -> None:
        """Send what waits, end the run, and end the process if that takes longer than ``timeout``."""
        self.send(do="finish", complete=complete)
        if self.process is None:
            return
        deadline = time.monotonic() + self.timeout
        while self.process is not None and self.process.poll() is None and time.monotonic() < deadline:
            self._exchange()
            time.sleep(0.02)
        if self.process is None:
            return
        self._listen()
        if self.process.poll() is None:
            self._tell(f"it has not finished within {self.timeout:g} s (TRACKING_RUN.TIMEOUT) and is left")
        self._end()

    def _exchange(self) -> None:
        if self.process is None:
            return
        assert self.process.stdin
        self._listen()
        try:
            while self._rest or self.waiting:
                self._rest = self._rest or self.waiting.popleft()
                self._rest = self._rest[os.write(self.process.stdin.fileno(), self._rest) :]
        except BlockingIOError:
            pass
        except OSError:  # the process has ended
            if self.process.poll() is not None:
                self._listen()
                self._tell(f"its process has ended with status {self.process.returncode}")
                self._end()

    def _listen(self) -> None:
        assert self.process and self.process.stdout
        with suppress(OSError):
            while piece := os.read(self.process.stdout.fileno(), 65536):
                self._reports += piece
        *lines, self._reports = self._reports.split(b"\n")
        for line in lines:
            with suppress(ValueError):
                self._hear(json.loads(line))

    def _hear(self, report: dict[str, str]) -> None:
        if "error" in report:
            self._tell(report["error"])
        elif "id" in report:
            where = report["url"] or f"files in {self.folder}"
            logger.info("This training is the run %s of %s: %s.", report["id"], self.service, where)
            with suppress(UserError):
                write_json(self._id_file, {"id": report["id"], "url": report["url"]})

    def _tell(self, problem: str) -> None:
        if not self._told:
            logger.warning(
                "Tracking with %s: %s. The training goes on without it; see %s.", self.service, problem.rstrip("."),
                self.folder / f"{self.service}.log",
            )  # fmt: skip
        self._told = True

    def _end(self) -> None:
        process, self.process = self.process, None
        assert process and process.stdin and process.stdout
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)  # also its children; it leads a group of its own
        process.wait()
        for end in (process.stdin, process.stdout):
            with suppress(OSError):
                end.close()
        self.waiting.clear()

    @property
    def _id_file(self) -> Path:
        return self.folder / f"{self.service}.json"

    def _former_id(self) -> str:
        if not self._id_file.is_file():
            return ""
        try:
            found = read_json(self._id_file, "Id of a tracked run").get("id")
            if isinstance(found, str) and RUN_ID.fullmatch(found):
                return found
            logger.warning("%s holds no id of a run, so there is a new run.", self._id_file)
        except UserError as error:
            logger.warning("%s There is a new run.", error)
        return ""
