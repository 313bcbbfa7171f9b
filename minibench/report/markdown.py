"""Blocks -> Markdown that shows on code hosting sites."""

import re
from collections.abc import Iterable
from urllib.parse import quote

from minibench.report.document import Bullets, Cell, Note, Paragraph, Picture, Pictures, Row, Section, Strip, Table
from minibench.report.markup import inline

__all__ = ["to_markdown"]


def to_markdown(title: str, sections: Iterable[Section], pictures: str = "pictures") -> str:
    """The whole page; ``pictures``: folder of the pictures, relative to the page."""
    parts = [f"# {_inline(title)}"]
    for section in sections:
        if section.title:
            parts.append(f"## {_inline(section.title)}")
        parts += [_block(block, pictures) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(block, pictures: str) -> str:
    match block:
        case Paragraph(text=text, lead=lead):
            return f"**{_inline(text.replace('**', ''))}**" if lead else _inline(text)
        case Note(text=text):
            return f"*{_inline(text.replace('**', ''))}*"
        case Bullets(items=items):
            return "\n".join(f"- {_inline(item)}" for item in items)
        case Table():
            return _table(block)
        case Pictures(items=items):
            return "\n\n".join(_picture(item, pictures) for item in items)
        case Strip():
            return _strip(block, pictures)
    raise TypeError(f"no Markdown for {type(block).__name__}")


def _table(table: Table) -> str:
    aligned = [":---" if index == 0 or index in table.text else "---:" for index in range(len(table.columns))]
    head = _line(_inline(text) for text in table.columns)
    lines = [head, _line(aligned), *(_row(row, len(table.columns)) for row in table.rows)]
    return f"{_inline(table.caption)}\n\n" + "\n".join(lines)


def _row(row: Row, columns: int) -> str:
    if row.kind == "group":
        cells = [f"**{_inline(row.cells[0].text.replace('**', ''))}**"] + [""] * (columns - 1)
    else:
        cells = [_cell(cell) for cell in row.cells]
    if row.kind == "sub":
        cells[0] = "· " + cells[0]
    return _line(cells)


def _cell(cell: Cell) -> str:
    text = " ".join(part for part in (cell.text, cell.detail) if part)
    return f"**{_inline(text.replace('**', ''))}**" if cell.best else _inline(text)


def _line(cells: Iterable[str]) -> str:
    """A row of a table, of cells that are Markdown already."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _picture(picture: Picture, pictures: str) -> str:
    alt = _inline(picture.alt.replace("[", "(").replace("]", ")"))
    image = f"![{alt}]({pictures}/{quote(picture.file)})"
    return f"{image}\n\n{_inline(picture.caption)}" if picture.caption else image


def _strip(strip: Strip, pictures: str) -> str:
    images = [_picture(Picture(item.file, item.alt), pictures) for item in strip.items]
    rule = [":---:"] * len(images)
    lines = [_line(_inline(item.caption) for item in strip.items), _line(rule), _line(images)]
    return f"{_inline(strip.title)}\n\n" + "\n".join(lines)


def _inline(text: str) -> str:
    return inline(text, _text, lambda code: f"`{_code(code)}`", ("**", "**"))


def _text(text: str) -> str:
    """Text without any markup: characters that would start a tag, a link, an entity or an emphasis are written out."""
    text = re.sub(r"&(?=#|\w+;)", "&amp;", text).replace("<", "&lt;").replace("\\", "&#92;")
    return re.sub(r"([*`\[\]])", r"\\\1", text)


def _code(text: str) -> str:
    # Nothing is markup in code, but a backslash there would take away the one before a table's "|".
    return text.replace("\\", "/")
