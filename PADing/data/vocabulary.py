"""Reads the words of a vocabulary: which classes a user wants to see, with synonyms, as things or stuff.

``zebra; traffic light, signal; stuff: grass, lawn`` are three classes: ``;`` or a new line between classes, ``,``
between synonyms, ``stuff:`` before a class without instances. A class is shown under its first name.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PADing.errors import UserError, did_you_mean, short

__all__ = ["MOST_CLASSES", "Entry", "parse_vocabulary"]

MOST_CLASSES = 20_000
LONGEST_NAME = 200
MOST_BYTES = 2**24  # of a file of names
KINDS = {"thing": True, "stuff": False}


@dataclass(frozen=True)
class Entry:
    """One class of a vocabulary: its ``names``, the shown one first, and whether it is a thing (has instances)."""

    names: tuple[str, ...]
    isthing: bool = True

    @property
    def name(self) -> str:
        """The name in results and drawings."""
        return self.names[0]

    @property
    def known_as(self) -> tuple[str, ...]:
        """The names by which a model or a file may know the class; also all of them as one, as in "couch, sofa"."""
        return self.names if len(self.names) == 1 else (", ".join(self.names), *self.names)

    def __str__(self) -> str:
        """The entry as a user writes it."""
        return ("" if self.isthing else "stuff: ") + ", ".join(self.names)


def parse_vocabulary(words: str | os.PathLike | Sequence[str]) -> tuple[Entry, ...]:
    """The classes of a text, of a text file, or of a list with one class each; see the module.

    Args:
        words: a text is the path of a file if such a file exists, or if it ends in ``.txt``. In a file, ``#`` begins a
            comment line.

    Raises:
        UserError: no class, too many, a name that occurs twice or cannot be shown, an unreadable file.
    """
    where = "The vocabulary"
    if isinstance(words, str) and "\n" in words:
        lines: Iterable[str] = words.split("\n")
    elif isinstance(words, os.PathLike) or isinstance(words, str) and _is_file(words):
        where = f"Vocabulary {words}"
        lines = [line for line in _read(Path(words)).split("\n") if not line.lstrip().startswith("#")]
    elif isinstance(words, str):
        lines = [words]
    else:
        lines = list(words)
        if wrong := [word for word in lines if not isinstance(word, str)]:
            raise UserError(f"{where} must be a list of class names, but holds {short(wrong[0])}.")
    entries = [_entry(part, where) for line in lines for part in line.split(";") if part.strip()]
    if not entries:
        example = 'Give names such as "zebra; traffic light, signal; stuff: grass".'
        raise UserError(f"{where} has no class. {example}")
    check_entries(entries, where)
    return tuple(entries)


def check_entries(entries: Sequence[Entry], where: str) -> None:
    """UserError that begins with ``where``: too many classes, a name that occurs twice, or that cannot be shown."""
    if len(entries) > MOST_CLASSES:
        raise UserError(f"{where} has {len(entries)} classes; the limit is {MOST_CLASSES}. Leave some out.")
    count = Counter(name for entry in entries for name in entry.names)
    for name in count:
        if len(name) > LONGEST_NAME or not name.isprintable():
            limit = f"Names are printable text of at most {LONGEST_NAME} characters."
            raise UserError(f"{where}: {short(name)} is no name of a class. {limit} Is it the right file?")
    twice = sorted(name for name, number in count.items() if number > 1)
    if twice:
        shown = ", ".join(twice[:5]) + (" ..." if len(twice) > 5 else "")
        raise UserError(f"{where} names {shown} twice. Keep each name once, in one class.")


def _entry(text: str, where: str) -> Entry:
    kind, colon, rest = text.partition(":")
    key, isthing = kind.strip().lower(), True
    if colon and key in KINDS:
        text, isthing = rest, KINDS[key]
    elif colon and (hint := did_you_mean(key, KINDS, 1)):
        raise UserError(f"{where}: {short(text.strip())} begins with an unknown kind{hint}. Write stuff: or nothing.")
    names = [" ".join(name.split()) for name in text.split(",")]
    names = list(dict.fromkeys(name for name in names if name))
    if not names:
        raise UserError(f"{where}: {short(text)} has no name. Write a name between the signs ; and ,")
    return Entry(tuple(names), isthing)


def _is_file(text: str) -> bool:
    return bool(re.search(r"\.(txt|npz)$", text.strip(), re.I)) or len(text) < 4096 and os.path.isfile(text)


def _read(path: Path) -> str:
    try:
        if not path.exists():
            raise UserError(f"Vocabulary {path} does not exist. Name a text file with one class a line, or a .npz.")
        if not path.is_file():
            raise UserError(f"Vocabulary {path} is no file. Name a text file with one class a line, or a .npz.")
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"Vocabulary {path} has more than {MOST_BYTES >> 20} MiB. Is it a list of names?")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"Vocabulary {path} is no text: one class a line in UTF-8 is expected.") from error
    except OSError as error:
        raise UserError(f"Vocabulary {path} cannot be read: {error.strerror}.") from error
