"""Class names: as the user gives them, as the source has them, and their numbers in the result."""

import json
import os
import re
from pathlib import Path
from typing import Any

from PADing.data.importers.report import Report
from PADing.errors import UserError, short


class ClassNames:
    """Counts classes in the order in which they are met.

    Names that differ in spaces or case alone are one class, spelled as the first; the report says so. ``given``
    replaces numbers or names of the source.
    """

    def __init__(self, given: dict[str, str], report: Report, keep_case: bool = False):
        self.given, self._report, self._keep_case = given, report, keep_case
        self._by_key: dict[str, str] = {}
        self._ids: dict[str, int] = {}
        self.colors: dict[str, list[int]] = {}

    def of(self, source: Any, where: str) -> str:
        """The class of a name in the source, which is new or known; "" if it is no usable name."""
        text = source if isinstance(source, str) else ""
        text = self.given.get(text, self.given.get(tidy(text), text))
        name = tidy(text)
        if not name:
            return ""
        first = self._by_key.setdefault(name if self._keep_case else name.casefold(), name)
        if first != text:
            self._report.change(f"class {text!r} is counted as {first!r}", where)
        return first

    def number(self, name: str, number: int | None = None) -> int:
        """The category id of a class; a new one gets ``number``, or the next from 1."""
        if name not in self._ids:
            self._ids[name] = len(self._ids) + 1 if number is None else number
        return self._ids[name]

    def categories(self) -> list[dict]:
        """The classes as COCO's categories, sorted by id."""
        colors = {name: {"color": color} for name, color in self.colors.items() if color}
        return [
            {"id": number, "name": name, "isthing": 1, **colors.get(name, {})}
            for name, number in sorted(self._ids.items(), key=lambda entry: entry[1])
        ]


def tidy(name: str) -> str:
    """The name in one line, with single spaces, in characters that can be written as UTF-8."""
    return " ".join(name.encode("utf-8", "replace").decode().split())


def read_given_names(text: str | None) -> dict[str, str]:
    """What ``--names`` says: by the number (or name) in the source, the name of the class.

    ``text`` is "1=person,2=dog", or a file: lines of "1=person" or "1 person" or "1: person", lines of names alone,
    which count from 0, or JSON: a list of names or of {"id", "name"}, or an object {"1": "person"}.

    Raises:
        UserError: unreadable, without a name, or one number twice.
    """
    if not text:
        return {}
    if os.path.isfile(text):
        pairs = _of_file(Path(text))
    elif "=" not in text:
        raise UserError(f"--names {short(text)} is neither a file nor a list such as 1=person,2=dog.")
    else:
        pairs = [tuple(part.split("=", 1)) for part in text.split(",") if part.strip()]  # type: ignore[misc]
    found: dict[str, str] = {}
    for pair in pairs:
        key, name = tidy(pair[0]), tidy(pair[-1])
        if len(pair) != 2 or not key or not name:
            raise UserError(f"--names: {short('='.join(pair))} is not of the form 1=person.")
        key = str(int(key)) if key.isascii() and key.isdigit() and len(key) < 9 else key
        if found.setdefault(key, name) != name:
            raise UserError(f"--names gives {key} two names, {found[key]!r} and {name!r}.")
    if not found:
        raise UserError(f"--names {short(text)} names no class.")
    return found


def _of_file(path: Path) -> list[tuple[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"--names {path} is not UTF-8 text. Save it as UTF-8.") from None
    if path.suffix.lower() == ".json":
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"--names {path} is not valid JSON: {error}.") from None
        if isinstance(content, dict):
            return [(str(key), str(name)) for key, name in content.items()]
        if not isinstance(content, list):
            raise UserError(f"--names {path} must hold a list or an object.")
        if all(isinstance(entry, dict) and {"id", "name"} <= entry.keys() for entry in content):
            return [(str(entry["id"]), str(entry["name"])) for entry in content]
        return [(str(i), str(name)) for i, name in enumerate(content)]
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    numbered = [re.fullmatch(r"(\d+)\s*[=:,\s]\s*(.+)|([^=]+)=(.+)", line) for line in lines]
    if lines and all(numbered):
        return [(m[1] or m[3], m[2] or m[4]) for m in numbered if m]
    return [(str(i), line) for i, line in enumerate(lines)]
