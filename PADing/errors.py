"""The one exception for mistakes that the person at the keyboard can mend."""


class UserError(RuntimeError):
    """Bad input: a wrong path, key, class name or checkpoint.

    The message stands alone: what is wrong, where, and what to do. Command-line tools print it without a traceback.
    """
