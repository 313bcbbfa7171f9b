"""What a process of a job says when it fails, and whether an exception follows from the failure of another process."""

import os
import traceback
from contextlib import suppress
from dataclasses import dataclass

import torch

from PADing.command_line import explain, message_of
from PADing.errors import UserError

LONGEST = 20_000  # characters of a report
# Parts of the messages with which PyTorch's backends report that another process has gone.
_OF_ANOTHER = ("gloo", "nccl", "connection closed by peer", "connection reset", "broken pipe", "socket timeout")


@dataclass(frozen=True)
class Report:
    """What has happened to a process.

    Attributes:
        rank: of the process.
        kind: "failed", "stopped" (by a signal), "gone" or "silent".
        title: a sentence without its end, which names the process.
        text: traceback or message.
        status: the exit status of the other processes.
        by: rank of the process that says so.
    """

    rank: int
    kind: str
    title: str
    text: str
    status: int
    by: int

    def __str__(self) -> str:
        return f"{self.title}:\n{self.text}" if self.text else f"{self.title}."


def mistake_of(error: BaseException) -> str:
    """The message for a mistake that the user can mend, as ``run_command`` prints it; "" for another exception."""
    if isinstance(error, UserError):
        return message_of(error)
    return explain(error) if isinstance(error, OSError) else ""


def may_follow(error: BaseException) -> bool:
    """Whether an exception may follow from the end of another process: the backend of the process group raised it."""
    text = f"{type(error).__name__}: {error}".lower()
    return isinstance(error, torch.distributed.DistError) or any(part in text for part in _OF_ANOTHER)


def traceback_of(error: BaseException) -> str:
    """The traceback of an exception, its end if it is very long."""
    return "".join(traceback.format_exception(error)).rstrip()[-LONGEST:]


def print_at_once(text: str) -> None:
    """Write to stderr at once, in one piece and on a new line, so that the outputs of several processes do not mix."""
    with suppress(OSError):
        os.write(2, f"\n{text}\n".encode(errors="backslashreplace"))
