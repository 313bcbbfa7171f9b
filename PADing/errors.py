"""The one exception for mistakes that the person at the keyboard can mend, and how it shows a value."""

import reprlib


class UserError(RuntimeError):
    """Bad input: a wrong path, key, class name or checkpoint.

    The message stands alone: what is wrong, where, and what to do. Command-line tools print it without a traceback.
    """


def short(value) -> str:
    """A value in a message: cut off when it is long, because files hold anything."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python prints no whole number of more than 4,300 digits
        return f"a huge {type(value).__name__}"
