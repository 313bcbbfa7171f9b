"""Blocks -> Markdown that shows on code hosting sites."""

import re
from collections.abc import Iterable
from urllib.parse import quote

from minibench.report.document import Block, Bullets, Cell, Image, Images, Row, Section, Table, Text, inline


def to_markdown(title: str, sections: Iterable[Section], images: str = "pictures") -> str:
    """The whole page; ``images``: their folder, relative to the page."""
    parts = [f"# {_inline(title)}"]
    for section in sections:
        if section.title:
            parts.append(f"## {_inline(section.title)}")
        parts += [_block(block, images) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(block: Block, images: str) -> str:
    match block:
        case Text(text=text, kind=kind):
            mark = {"lead": "**", "note": "*"}.get(kind, "")
            return f"{mark}{_inline(text.replace('**', '') if mark else text)}{mark}"
        case Bullets(items=items):
            return "\n".join(f"- {_inline(item)}" for item in items)
        case Table():
            aligned = [":---" if i == 0 or i in block.text else "---:" for i in range(len(block.columns))]
            rows = (_row(row, len(block.columns)) for row in block.rows)
            return "\n".join([f"{_inline(block.caption)}\n", _line(map(_inline, block.columns)), _line(aligned), *rows])
        case Images(items=items, layout="strip", title=title):
            files = [_image(Image(item.file, item.alt), images) for item in items]
            lines = [_line(_inline(item.caption) for item in items), _line([":---:"] * len(items)), _line(files)]
            return "\n".join([f"{_inline(title)}\n", *lines])
        case Images(items=items):
            return "\n\n".join(_image(item, images) for item in items)


def _row(row: Row, columns: int) -> str:
    if row.kind == "group":
        return _line([f"**{_inline(row.cells[0].text.replace('**', ''))}**"] + [""] * (columns - 1))
    cells = [_cell(cell) for cell in row.cells]
    return _line(["· " + cells[0], *cells[1:]] if row.kind == "sub" else cells)


def _cell(cell: Cell) -> str:
    text = " ".join(part for part in (cell.text, cell.detail) if part)
    return f"**{_inline(text.replace('**', ''))}**" if cell.best else _inline(text)


def _line(cells: Iterable[str]) -> str:
    """A row of a table, of cells that are Markdown already."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _image(image: Image, images: str) -> str:
    alt = _inline(image.alt.replace("[", "(").replace("]", ")"))
    text = f"![{alt}]({images}/{quote(image.file)})"
    return f"{text}\n\n{_inline(image.caption)}" if image.caption else text


def _inline(text: str) -> str:
    # Nothing is markup in code, but a backslash there would take away the one before a table's "|".
    return inline(text, _text, lambda code: f"`{code.replace(chr(92), '/')}`", ("**", "**"))


def _text(text: str) -> str:
    """Text without any markup: characters that would start a tag, a link, an entity or an emphasis are written out."""
    text = re.sub(r"&(?=#|\w+;)", "&amp;", text).replace("<", "&lt;").replace("\\", "&#92;")
    return re.sub(r"([*`\[\]])", r"\\\1", text)
