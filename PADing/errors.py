"""Exceptions for mistakes that the user can mend and for runs that the user stops; parts of their messages."""

import reprlib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class UserError(RuntimeError):
    """Bad input: a wrong path, key, class name or checkpoint.

    The message stands alone: what is wrong, where, and what to do. Command-line tools print it without a traceback.
    """


def refuse(problems: Sequence[str]) -> None:
    """Raise one ``UserError`` with all problems: one sentence as it is, several as a list. Nothing if there is none."""
    if len(problems) > 1:
        raise UserError(f"{len(problems)} mistakes:\n" + "\n".join(f"  - {problem}" for problem in problems))
    if problems:
        raise UserError(problems[0])


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or another signal, ``number``, that asks the program to end.

    ``told``: the user has been told what is saved and how to continue, so nothing more is to be printed.
    """

    def __init__(self, number: int, told: bool = False):
        super().__init__(number)
        self.number, self.told = number, told

    @property
    def status(self) -> int:
        """The exit status by which shells and schedulers know the signal: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number


def short(value) -> str:
    """A value in a message: cut off when it is long, because files hold anything."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python prints no whole number of more than 4,300 digits
        return f"a huge {type(value).__name__}"


def did_you_mean(name: object, known: Iterable[str], n: int = 3) -> str:
    """`` (did you mean a, b?)`` with the names nearest to a wrong one in any case of letters; "" if none is near."""
    by_lower = {other.lower(): other for other in sorted(known)}
    near = [by_lower[other] for other in get_close_matches(str(name).lower(), by_lower, n=n)]
    return f" (did you mean {', '.join(near)}?)" if near else ""
