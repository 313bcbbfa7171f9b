"""The little markup that text of the report may hold, ``**bold**`` and `` `code` ``, whatever names in it contain."""

import re
from collections.abc import Callable

__all__ = ["inline", "one_line"]


def one_line(text: str) -> str:
    """Text without line breaks, control characters and what is no character at all."""
    return re.sub(r"[\ud800-\udfff\ufffe\uffff]", "\ufffd", re.sub(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+", " ", text))


def inline(text: str, plain: Callable[[str], str], code: Callable[[str], str], bold: tuple[str, str]) -> str:
    """Translate the markup of a text: what ``plain`` and ``code`` make of its parts, in one line.

    ``bold``: what opens and closes bold text, which always nest. A mark without its partner is text.
    """
    pieces = re.split(r"(`[^`]+`|\*\*)", one_line(text))
    marks = [i for i, piece in enumerate(pieces) if piece == "**"]
    paired = dict(zip(marks[: len(marks) // 2 * 2], bold * (len(marks) // 2), strict=True))
    done = []
    for i, piece in enumerate(pieces):
        if i in paired:
            done.append(paired[i])
        else:
            done.append(code(piece[1:-1]) if len(piece) > 2 and piece[0] == piece[-1] == "`" else plain(piece))
    return "".join(done)
