"""The report as a list of sections and blocks, from which the web page and the Markdown page are made.

Text can have ``**bold**`` and `` `code` ``. Nothing else is markup, also in names of classes and data sets.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from PADing.yaml_files import read_yaml

_TEXTS = read_yaml(str(Path(__file__).with_name("report.yaml")), "Texts of the report")


def say(key: str, **values: object) -> str:
    """The text of ``report.yaml`` under ``key``, with ``values`` filled in."""
    return Environment(undefined=StrictUndefined).from_string(_TEXTS[key]).render(values)


@dataclass(frozen=True)
class Text:
    """A paragraph. ``kind``: "", "lead" (summary) or "note" (small print)."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: list[str]


@dataclass(frozen=True)
class Cell:
    """A cell of a table. ``detail`` follows the text in a lighter tone. ``tone``: "", "good", "bad" or "even"."""

    text: str
    detail: str = ""
    best: bool = False
    tone: str = ""


@dataclass(frozen=True)
class Row:
    """``kind``: "" or "group" (a heading over rows; its first cell spans all columns) or "sub" (indented)."""

    cells: list[Cell]
    kind: str = ""


def heading(text: str) -> Row:
    """A heading over the rows of a group."""
    return Row([Cell(text)], "group")


@dataclass(frozen=True)
class Table:
    """The first column has names, the others have numbers; ``text`` lists the indices of other text columns."""

    caption: str
    columns: list[str]
    rows: list[Row]
    text: tuple[int, ...] = ()


@dataclass(frozen=True)
class Image:
    """A file in ``pictures/``; ``alt`` is its alternative text, one sentence."""

    file: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Images:
    """Charts, if any, as many in a row as fit; layout "wide": one in a row, "small": more.

    Layout "strip", with a title: a row of small images that belong together, with captions above them.
    """

    items: list[Image]
    layout: str = ""
    title: str = ""


Block = Text | Bullets | Table | Images


@dataclass
class Section:
    """``key`` is the target of links."""

    title: str
    key: str
    blocks: list[Block] = field(default_factory=list)


def one_line(text: str) -> str:
    """Text without line breaks, control characters and invalid characters."""
    return re.sub(r"[\ud800-\udfff\ufffe\uffff]", "\ufffd", re.sub(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+", " ", text))


def inline(text: str, plain: Callable[[str], str], code: Callable[[str], str], bold: tuple[str, str]) -> str:
    """Translate the markup of a text to one line: ``plain`` and ``code`` translate the parts.

    ``bold``: the marks that open and close bold text. A mark without its partner is text.
    """
    pieces = re.split(r"(`[^`]+`|\*\*)", one_line(text))
    marks = [i for i, piece in enumerate(pieces) if piece == "**"]
    paired = dict(zip(marks[: len(marks) // 2 * 2], bold * (len(marks) // 2), strict=True))
    is_code = re.compile(r"`[^`]+`").fullmatch
    return "".join(paired.get(i) or (code(p[1:-1]) if is_code(p) else plain(p)) for i, p in enumerate(pieces))
