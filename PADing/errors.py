"""Exceptions for mistakes that the user can fix and for runs that the user stops; helpers for their messages."""

import reprlib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from PADing.requeue import NOTICES, requeue_status

# Mistakes that one message lists; a config file of another program would have hundreds.
MOST_LISTED = 12


class UserError(RuntimeError):
    """Bad input: a wrong path, key, class name or checkpoint.

    The message says what is wrong, where, and what to do. Command-line tools print it without a traceback.
    """


def refuse(problems: Sequence[str]) -> None:
    """Raise one ``UserError`` that lists ``problems``, at most ``MOST_LISTED``; do nothing if there are none."""
    if len(problems) > 1:
        lines = [f"  - {problem}" for problem in problems[:MOST_LISTED]]
        lines += [f"  ... and {len(problems) - MOST_LISTED} more"] if len(problems) > MOST_LISTED else []
        raise UserError("\n".join([f"{len(problems)} mistakes:", *lines]))
    if problems:
        raise UserError(problems[0])


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or another signal (``number``) that asks the program to end.

    ``told``: the user has already read what is saved and how to continue, so print nothing more.
    """

    def __init__(self, number: int, told: bool = False):
        super().__init__(number)
        self.number, self.told = number, told

    @property
    def status(self) -> int:
        """The exit status for shells and schedulers: 130 for Ctrl-C, 143 for SIGTERM, 75 for a notice."""
        return requeue_status() if self.number in NOTICES else 128 + self.number


class ReportedFailure(Exception):
    """A process of a job ends with ``status``, because it or another one has failed; the report is printed."""

    def __init__(self, status: int):
        super().__init__(f"a process of the job has failed (status {status})")
        self.status = status


def short(value) -> str:
    """``repr`` of a value for a message, cut off when it is long."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python refuses to print integers of more than 4,300 digits
        return f"a huge {type(value).__name__}"


def did_you_mean(name: object, known: Iterable[str], n: int = 3) -> str:
    """`` (did you mean a, b?)`` with up to ``n`` similar names, ignoring case; "" if none is similar."""
    by_lower = {other.lower(): other for other in sorted(known)}
    near = [by_lower[other] for other in get_close_matches(str(name).lower(), by_lower, n=n)]
    return f" (did you mean {', '.join(near)}?)" if near else ""
