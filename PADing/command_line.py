"""What all command-line tools share: exit statuses, one message instead of a traceback, the parser, argument types.

Status 0: done. 1: the command found something wrong, or another process of the job is gone. 2: a mistake that the user
can fix; argparse uses the same. 130: Ctrl-C. 143: SIGTERM. 75: a notice of a scheduler (``PADing.requeue``). 128 + n: a
process of a job was killed by signal n. A script calls ``quiet_ctrl_c()`` first.
It parses its arguments before it imports what takes seconds, so ``--help`` and the message for a wrong flag come at
once. Nor does this module import any of it.
"""

import argparse
import io
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from PADing.errors import Interrupted, ReportedFailure, UserError
from PADing.files import PACKAGES, REPOSITORY, explain_os_error, is_disk_full
from PADing.requeue import requeue_status

STATUS_FAILED = 1
STATUS_USER_ERROR = 2
STATUS_STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
# Seconds that the other processes wait for the first one to report a mistake that all have found.
GRACE = 5.0


def quiet_ctrl_c() -> None:
    """From now on Ctrl-C ends the process without a traceback, even while modules are imported."""
    open_standard_streams()
    show = sys.excepthook

    def hook(kind, error, trace) -> None:
        if not issubclass(kind, KeyboardInterrupt) or shows_tracebacks():
            show(kind, error, trace)

    sys.excepthook = hook


def open_standard_streams() -> None:
    """Give a process that was started without standard streams (``>&-``, some daemons) empty ones.

    Otherwise the first file that it opens would get the number of a stream, and what libraries print.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the description and appends a flag's default to its help."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        silent = default is None or isinstance(default, bool) or default in ("", [], argparse.SUPPRESS)
        if silent or not action.option_strings or not action.help or "default" in action.help:
            return action.help
        return f"{action.help} (default: %(default)s)"


class CommandParser(argparse.ArgumentParser):
    """The parser of a command and its sub-commands; ``--help`` keeps the line breaks of the description."""

    def __init__(self, description: str | None = None, **kwargs: Any):
        text = description and as_typed(description)
        super().__init__(description=text, **{"formatter_class": _Help, **kwargs})


def run_command(function: Callable[..., Any], *args) -> int:
    """Run ``function(*args)`` as the body of a command-line tool; returns the exit status.

    The status is the integer that ``function`` returns, else 0. A ``UserError`` or an error of the operating system is
    printed to stderr as one message, with a traceback only when ``PADING_TRACEBACK=1``. Every other exception is a
    defect and is raised.
    """
    open_standard_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as of stderr: a terminal need not know all letters
    try:
        status = function(*args)
        sys.stdout.flush()  # raise BrokenPipeError here, not when the interpreter ends
    except ReportedFailure as error:
        return error.status
    except UserError as error:
        return _report(error)
    except KeyboardInterrupt as error:
        if shows_tracebacks():
            raise
        stop = error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT)
        if not stop.told:
            print("\nInterrupted.", file=sys.stderr, flush=True)
        return stop.status
    except BrokenPipeError:
        # As in `tool | head`. Send the rest of the buffer to /dev/null, so that it does not raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return STATUS_USER_ERROR
    except OSError as error:
        message = explain(error)
        if not message:
            raise
        return _report(UserError(message), error)
    except Exception as error:
        status = _status_of_process(error)
        if status is not None and status < 0:
            return _report_killed(-status, error)
        # The process that ended has already printed its message.
        if status not in (STATUS_FAILED, STATUS_USER_ERROR, *STATUS_STOPPED, requeue_status()):
            raise
        return status
    return int(status) if isinstance(status, int) else 0


def _status_of_process(error: Exception) -> int | None:
    """The exit status of the process that ended, if ``error`` is PyTorch's about it; without importing PyTorch."""
    module = sys.modules.get("torch.multiprocessing")
    ended = module is not None and isinstance(error, module.ProcessExitedException)
    return getattr(error, "exit_code", None) if ended else None


def shows_tracebacks() -> bool:
    """Whether ``PADING_TRACEBACK=1`` asks for tracebacks of ``UserError``, too."""
    return os.environ.get("PADING_TRACEBACK") == "1"


def message_of(error: UserError) -> str:
    """The message of an error, without the text that torch adds in a data-loading worker."""
    message = str(error)
    if "Original Traceback" in message:
        message = message.rpartition(f"{type(error).__name__}: ")[2].strip()
    return as_typed(message)


def as_typed(text: str) -> str:
    """``text`` with ``pading NAME`` for ``python SCRIPT`` where no checkout with scripts is at hand."""
    if REPOSITORY == PACKAGES:
        return text
    from pading_cli import COMMANDS

    names = {target: name for name, (target, first, _) in COMMANDS.items() if not first}
    return re.sub(r"\bpython ((?:-m )?[\w./]+)", lambda m: f"pading {names[m[1]]}" if m[1] in names else m[0], text)


def explain(error: OSError) -> str:
    """The message for an error of the operating system; "" for a defect of this program."""
    if is_disk_full(error) and not error.filename:
        return "Disk full: a file could not be written. Make room and run the command again."
    if is_disk_full(error):
        return explain_os_error(error.filename, error)
    if not error.filename or error.errno is None:
        return ""
    if isinstance(error, FileNotFoundError):
        return f"File or folder not found: {error.filename}. Are DETECTRON2_DATASETS and the config's paths right?"
    return f"{error.filename} cannot be read or written: {error.strerror}."


def _report_killed(number: int, error: Any) -> int:
    name = signal.Signals(number).name if number in list(signal.Signals) else f"signal {number}"
    cause = "The machine may have had no memory left. " if name == "SIGKILL" else ""
    rank = getattr(error, "rank", error.error_index)
    which = f"process {rank}, host {socket.gethostname()}, pid {error.error_pid}"
    problem = f"A process of the job was killed by {name}: {which}. The others are ended, too."
    print(f"\nerror: {problem} {cause}A training goes on from its last checkpoint with --resume.", file=sys.stderr)
    return 128 + number


def _report(error: UserError, cause: BaseException | None = None) -> int:
    if shows_tracebacks():
        raise error from (cause or error.__cause__)
    message = message_of(error)
    # Under torchrun the process group is gone by now, so the environment tells the rank.
    torchrun = {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys()
    comm = sys.modules.get("detectron2.utils.comm")  # without it there is no process group
    rank = int(os.environ["RANK"]) if torchrun else comm.get_rank() if comm is not None else 0
    if rank > 0:
        # The first process usually reports the same and then ends this one. If it does not, report here.
        time.sleep(GRACE)
        message = f"(process {rank}) {message}"
    print(f"\nerror: {message}", file=sys.stderr, flush=True)
    return STATUS_USER_ERROR


# ---- arguments that tools share


def add_config_options(parser: argparse.ArgumentParser, num_gpus: int | None = None, without_config: str = "") -> None:
    """Add ``--config-file``, ``--num-gpus``, and config overrides after ``--opts`` or at the end of the line.

    ``num_gpus``: the default; None: one GPU if there is one. ``without_config``: what the command does without a config
    file; "": it needs one.
    """
    default = "a GPU if there is one" if num_gpus is None else num_gpus
    what = "config of the model" + (f" (default: {without_config})" if without_config else "")
    parser.add_argument("--config-file", required=not without_config, metavar="FILE", help=what)
    parser.add_argument("--num-gpus", type=count, default=num_gpus, help=f"0: use the CPU (default: {default})")
    add_opts_flag(parser)
    text = "config overrides at the end of the line: KEY value, or KEY=value"
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help=text)
    parser.set_defaults(eval_only=True)


def add_opts_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--opts KEY value ...``, for commands that take a list of files before the overrides."""
    rest: dict[str, Any] = {"nargs": argparse.REMAINDER, "help": "config overrides; the last flag on the line"}
    parser.add_argument("--opts", dest="more_opts", default=[], metavar="KEY VALUE", **rest)


def _number(kind: type, holds: Callable[[Any], bool], wanted: str) -> Callable[[str], Any]:
    def convert(text: str):
        with suppress(ValueError):
            if holds(number := kind(text)):
                return number
        raise argparse.ArgumentTypeError(f"must be {wanted}, but is {text!r}")

    return convert


positive = _number(int, lambda number: number >= 1, "a whole number of at least 1")  # images, pixels, processes
count = _number(int, lambda number: number >= 0, "a whole number of at least 0")
gibibytes = _number(float, lambda number: 0 < number < 2**20, "a number of GiB above 0")  # memory
above_zero = _number(float, lambda number: 0 < number < float("inf"), "a number above 0")
fraction = _number(float, lambda number: 0 <= number <= 1, "a number from 0 to 1")  # thresholds of scores
