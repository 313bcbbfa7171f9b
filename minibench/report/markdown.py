"""Blocks -> Markdown that shows on code hosting sites."""

from collections.abc import Iterable

from minibench.report.document import Bullets, Cell, Note, Paragraph, Picture, Pictures, Row, Section, Strip, Table

__all__ = ["to_markdown"]


def to_markdown(title: str, sections: Iterable[Section], pictures: str = "pictures") -> str:
    """The whole page; ``pictures``: folder of the pictures, relative to the page."""
    parts = [f"# {title}"]
    for section in sections:
        if section.title:
            parts.append(f"## {section.title}")
        parts += [_block(block, pictures) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(block, pictures: str) -> str:
    match block:
        case Paragraph(text=text, lead=lead):
            return f"**{text.replace('**', '')}**" if lead else text
        case Note(text=text):
            return f"*{text.replace('**', '')}*"
        case Bullets(items=items):
            return "\n".join(f"- {item}" for item in items)
        case Table():
            return _table(block)
        case Pictures(items=items):
            return "\n\n".join(_picture(item, pictures) for item in items)
        case Strip():
            return _strip(block, pictures)
    raise TypeError(f"no Markdown for {type(block).__name__}")


def _table(table: Table) -> str:
    aligned = [":---" if index == 0 or index in table.text else "---:" for index in range(len(table.columns))]
    lines = [_line(table.columns), _line(aligned), *(_row(row, len(table.columns)) for row in table.rows)]
    return f"{table.caption}\n\n" + "\n".join(lines)


def _row(row: Row, columns: int) -> str:
    if row.kind == "group":
        cells = [f"**{row.cells[0].text}**"] + [""] * (columns - 1)
    else:
        cells = [_cell(cell) for cell in row.cells]
    if row.kind == "sub":
        cells[0] = "· " + cells[0]
    return _line(cells)


def _cell(cell: Cell) -> str:
    text = " ".join(part for part in (cell.text, cell.detail) if part)
    return f"**{text}**" if cell.best else text


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _picture(picture: Picture, pictures: str) -> str:
    alt = picture.alt.replace("[", "(").replace("]", ")")
    image = f"![{alt}]({pictures}/{picture.file})"
    return f"{image}\n\n{picture.caption}" if picture.caption else image


def _strip(strip: Strip, pictures: str) -> str:
    images = [_picture(Picture(item.file, item.alt), pictures) for item in strip.items]
    rule = [":---:"] * len(images)
    lines = [_line(item.caption for item in strip.items), _line(rule), _line(images)]
    return f"{strip.title}\n\n" + "\n".join(lines)
