"""Setup of loggers, messages that are not repeated too often, and a small table."""

import contextlib
import logging
import os
import sys
import time
from collections import Counter

from termcolor import colored

CLOCK = "%m/%d %H:%M:%S"
IN_FILES = logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s", CLOCK)


def setup_logger(
    output: str | None = None,
    distributed_rank: int = 0,
    *,
    color: bool = True,
    name: str = "detectron2",
    abbrev_name: str | None = None,
) -> logging.Logger:
    """Send what is logged under ``name`` to the terminal (from rank 0) and to a file (from every rank).

    Calling it again replaces the terminal's format, and adds a file if it is another one. A log that cannot be written
    never ends the program. ``output`` is the folder of ``log.txt``, or a file that ends in .txt or .log, with
    ``.rank1`` and so on appended on other ranks. ``abbrev_name`` stands for ``name`` on the terminal; "d2" for
    "detectron2". All levels are logged, and nothing goes to the logger's parents.
    """
    logger = logging.getLogger(name)
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    if not distributed_rank:
        short = abbrev_name if abbrev_name is not None else {"detectron2": "d2"}.get(name, name)
        _attach(logger, _Terminal(), _Colored(name, short) if color else IN_FILES)
    if output is not None:
        path = output if os.path.splitext(output)[1] in (".txt", ".log") else os.path.join(output, "log.txt")
        path += f".rank{distributed_rank}" if distributed_rank else ""
        try:
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            _attach(logger, _File(path), IN_FILES)
        except OSError as error:
            logger.warning("The log file %s cannot be opened (%s); the terminal has all messages.", path, error)
    return logger


class _NeverFatal(logging.Handler):
    """Prints one line in place of logging's tracebacks if a handler's target is full or closed."""

    silenced = False
    target = "standard output"

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)  # a defect of the message
        elif not self.silenced:
            self.silenced = True
            with contextlib.suppress(OSError, AttributeError):  # there may be no stderr
                sys.stderr.write(f"warning: log messages to {self.target} are being lost ({error})\n")


class _Terminal(_NeverFatal):
    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stdout  # looked up each time, because notebooks and tests replace it
        try:
            # A terminal need not know all characters that class names have.
            encoding = getattr(stream, "encoding", None) or "utf-8"
            stream.write(self.format(record).encode(encoding, "backslashreplace").decode(encoding) + "\n")
            stream.flush()
        except Exception:
            self.handleError(record)


class _File(_NeverFatal, logging.FileHandler):
    def __init__(self, path: str):
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.target = self.baseFilename


class _Colored(logging.Formatter):
    """Readable lines: short names, and the level only from warnings on."""

    def __init__(self, name: str, short: str):
        super().__init__(f"{colored('[%(asctime)s %(short)s]: ', 'green')}%(message)s", CLOCK)
        self.name, self.short = name, short

    def formatMessage(self, record: logging.LogRecord) -> str:
        below = record.name.startswith(self.name + ".")
        record.short = (self.short + record.name[len(self.name) :]).lstrip(".") if below else record.name
        line = super().formatMessage(record)
        if record.levelno < logging.WARNING:
            return line
        alarm = "WARNING" if record.levelno == logging.WARNING else "ERROR"
        return f"{colored(alarm, 'red', attrs=['bold'])} {line}"


def _attach(logger: logging.Logger, handler: _Terminal | _File, formatter: logging.Formatter) -> None:
    for present in list(logger.handlers):
        if isinstance(present, _NeverFatal) and present.target == handler.target:
            logger.removeHandler(present)
            present.close()
    handler.setFormatter(formatter)
    logger.addHandler(handler)


_times_called: Counter = Counter()
_last_logged: dict[tuple, float] = {}


def log_first_n(lvl: int, msg: str, n: int = 1, *, name: str | None = None, key: str | tuple = "caller") -> None:
    """Log ``msg`` for the first ``n`` calls; the same call is the same "caller" (line), "message", or both."""
    module, line = _calling_line()
    kinds = {key} if isinstance(key, str) else set(key)
    if not kinds or kinds - {"caller", "message"}:
        raise ValueError(f"key is {key!r}, but must be 'caller', 'message', or a tuple of both.")
    call = (line if "caller" in kinds else None, msg if "message" in kinds else None)
    _times_called[call] += 1
    if _times_called[call] <= n:
        logging.getLogger(name or module).log(lvl, msg)


def log_every_n(lvl: int, msg: str, n: int = 1, *, name: str | None = None) -> None:
    """Log ``msg`` at level ``lvl`` for the first, the n + 1st, ... call from the same line of code."""
    module, line = _calling_line()
    if _times_called[line] % n == 0:
        logging.getLogger(name or module).log(lvl, msg)
    _times_called[line] += 1


def log_every_n_seconds(lvl: int, msg: str, n: int = 1, *, name: str | None = None) -> None:
    """Log ``msg`` at level ``lvl`` if the same line of code has not logged for ``n`` seconds."""
    module, line = _calling_line()
    if time.monotonic() - _last_logged.get(line, -float("inf")) >= n:
        logging.getLogger(name or module).log(lvl, msg)
        _last_logged[line] = time.monotonic()


def _calling_line() -> tuple[str, tuple[str, int]]:
    """Module, and file and line, from where a function of this file has been called."""
    frame = sys._getframe(2)
    module = frame.f_globals.get("__name__", "__main__")
    return "detectron2" if module == "__main__" else module, (frame.f_code.co_filename, frame.f_lineno)


def create_small_table(small_dict: dict[str, float]) -> str:
    """Names and numbers (with three decimals) as a table of one row."""
    from tabulate import tabulate  # its width tables take a tenth of a second to import

    row = {name: [number] for name, number in small_dict.items()}
    return tabulate(row, "keys", "pipe", floatfmt=".3f", numalign="center", stralign="center")


def _log_api_usage(identifier: str) -> None:
    """Does nothing; published code calls it."""
