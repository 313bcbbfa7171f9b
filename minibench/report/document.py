"""The report as a list of sections and blocks, which both the web page and the Markdown page are made of.

Text may hold ``**bold**`` and `` `code` ``; nothing else is markup, whatever names of classes and data sets contain.
"""

from dataclasses import dataclass, field

__all__ = ["Bullets", "Cell", "Note", "Paragraph", "Picture", "Pictures", "Row", "Section", "Strip", "Table"]


@dataclass(frozen=True)
class Paragraph:
    text: str
    lead: bool = False  # the sentence that a reader in a hurry reads


@dataclass(frozen=True)
class Note:
    """Small print: how figures came about, or why something is missing."""

    text: str


@dataclass(frozen=True)
class Bullets:
    items: list[str]


@dataclass(frozen=True)
class Cell:
    """Of a table. ``detail`` stands behind the text in a lighter tone; ``tone``: "", "good", "bad" or "even"."""

    text: str
    detail: str = ""
    best: bool = False
    tone: str = ""


@dataclass(frozen=True)
class Row:
    """``kind``: "" or "group" (a heading over rows; its first cell spans all columns) or "sub" (indented)."""

    cells: list[Cell]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """The first column holds names, the others figures, unless ``text`` names their indices."""

    caption: str
    columns: list[str]
    rows: list[Row]
    text: tuple[int, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A file below ``pictures/``; ``alt`` says what it shows to whoever cannot see it."""

    file: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Pictures:
    """Charts, as many side by side as there is room for; layout "wide": each over the whole width, "small": more."""

    items: list[Picture]
    layout: str = ""


@dataclass(frozen=True)
class Strip:
    """A row of small pictures that belong together; their captions stand above them."""

    title: str
    items: list[Picture]


@dataclass
class Section:
    """``key``: for links."""

    title: str
    key: str
    blocks: list = field(default_factory=list)
