"""Loggers with Detectron2's format, and logging at a limited rate."""

import functools
import logging
import os
import sys
import time
from collections import Counter

from detectron2.utils.file_io import PathManager
from tabulate import tabulate
from termcolor import colored

__all__ = ["setup_logger", "create_small_table", "log_first_n", "log_every_n", "log_every_n_seconds"]

DATE_FORMAT = "%m/%d %H:%M:%S"


class _ColorfulFormatter(logging.Formatter):
    """Abbreviates the root of logger names and colours warnings and errors."""

    def __init__(self, *args, root_name: str, abbrev_name: str, **kwargs):
        self._root = root_name + "."
        self._abbrev = abbrev_name + "." if abbrev_name else ""
        super().__init__(*args, **kwargs)

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.name = record.name.replace(self._root, self._abbrev)
        text = super().formatMessage(record)
        if record.levelno == logging.WARNING:
            return f"{colored('WARNING', 'red', attrs=['blink'])} {text}"
        if record.levelno in (logging.ERROR, logging.CRITICAL):
            return f"{colored('ERROR', 'red', attrs=['blink', 'underline'])} {text}"
        return text


@functools.lru_cache  # so that a second call with the same arguments adds no second set of handlers
def setup_logger(
    output: str | None = None,
    distributed_rank: int = 0,
    *,
    color: bool = True,
    name: str = "detectron2",
    abbrev_name: str | None = None,
    enable_propagation: bool = False,
    configure_stdout: bool = True,
) -> logging.Logger:
    """Configure the logger ``name``: all levels, to standard output on rank 0 and to a file on every rank.

    Args:
        output: a folder, which gets ``log.txt``, or a file name ending in ``.txt`` or ``.log``. Ranks other than 0
            append ``.rank{n}`` to it. None: no file.
        distributed_rank: rank of this process.
        color: colour the output on the terminal.
        name: name of the logger.
        abbrev_name: what to print for the root part of names; by default "d2" for "detectron2", else ``name``.
        enable_propagation: also hand records to parent loggers.
        configure_stdout: log to standard output (on rank 0).
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = enable_propagation
    if abbrev_name is None:
        abbrev_name = "d2" if name == "detectron2" else name

    plain = logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s", datefmt=DATE_FORMAT)
    if configure_stdout and distributed_rank == 0:
        handler = logging.StreamHandler(stream=sys.stdout)
        handler.setLevel(logging.DEBUG)
        if color:
            prefix = colored("[%(asctime)s %(name)s]: ", "green")
            formatter = _ColorfulFormatter(
                prefix + "%(message)s", datefmt=DATE_FORMAT, root_name=name, abbrev_name=str(abbrev_name)
            )
        else:
            formatter = plain
        handler.setFormatter(formatter)
        logger.addHandler(handler)

    if output is not None:
        filename = output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt")
        if distributed_rank > 0:
            filename = f"{filename}.rank{distributed_rank}"
        if os.path.dirname(filename):
            PathManager.mkdirs(os.path.dirname(filename))
        handler = logging.StreamHandler(_open_log_file(filename))
        handler.setLevel(logging.DEBUG)
        handler.setFormatter(plain)
        logger.addHandler(handler)
    return logger


@functools.lru_cache  # several loggers share one stream per file
def _open_log_file(filename: str):
    # StreamHandler flushes after each record, so nothing is lost when the program is killed.
    return PathManager.open(filename, "a")


def create_small_table(small_dict: dict) -> str:
    """A dict of a few numbers as a one-row table with pipes, three decimals, centred."""
    keys, values = tuple(zip(*small_dict.items(), strict=True))
    return tabulate(
        [values], headers=keys, tablefmt="pipe", floatfmt=".3f", stralign="center", numalign="center"
    )


def _caller(depth: int) -> tuple[str, tuple]:
    """Name of the calling module, and a key of the calling place: file, line and function.

    Frames of this module are not counted.
    """
    frame = sys._getframe(depth)
    while frame:
        code = frame.f_code
        if os.path.join("utils", "logger.") not in code.co_filename:
            name = frame.f_globals["__name__"]
            return "detectron2" if name == "__main__" else name, (code.co_filename, frame.f_lineno, code.co_name)
        frame = frame.f_back
    raise RuntimeError("Logging was called from outside any module.")


_LOG_COUNTER = Counter()
_LOG_TIMER: dict = {}


def log_first_n(lvl: int, msg: str, n: int = 1, *, name: str | None = None, key: str | tuple = "caller") -> None:
    """Log only the first ``n`` times.

    Args:
        lvl: logging level.
        msg: the message.
        n: how many times.
        name: name of the logger; by default the caller's module.
        key: what is counted: ``"caller"``, ``"message"``, or both as a tuple.
    """
    keys = (key,) if isinstance(key, str) else key
    assert keys, "key must name at least one of 'caller' and 'message'"
    module, place = _caller(1)
    count_key: tuple = ()
    if "caller" in keys:
        count_key += place
    if "message" in keys:
        count_key += (msg,)
    _LOG_COUNTER[count_key] += 1
    if _LOG_COUNTER[count_key] <= n:
        logging.getLogger(name or module).log(lvl, msg)


def log_every_n(lvl: int, msg: str, n: int = 1, *, name: str | None = None) -> None:
    """Log the first of every ``n`` calls from the same place."""
    module, place = _caller(1)
    _LOG_COUNTER[place] += 1
    if n == 1 or _LOG_COUNTER[place] % n == 1:
        logging.getLogger(name or module).log(lvl, msg)


def log_every_n_seconds(lvl: int, msg: str, n: float = 1, *, name: str | None = None) -> None:
    """Log unless less than ``n`` seconds have passed since the last message from the same place."""
    module, place = _caller(1)
    now = time.time()
    last = _LOG_TIMER.get(place)
    if last is None or now - last >= n:
        logging.getLogger(name or module).log(lvl, msg)
        _LOG_TIMER[place] = now


def _log_api_usage(identifier: str) -> None:
    """Does nothing. It exists because code written for Detectron2 calls it."""
