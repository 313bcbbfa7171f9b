"""Blocks -> one HTML file that needs nothing beside it: style and pictures are inside, and there is no script."""

import base64
import re
from collections.abc import Iterable
from html import escape
from pathlib import Path

from PIL import Image

from minibench.report.document import Bullets, Cell, Note, Paragraph, Picture, Pictures, Row, Section, Strip, Table
from minibench.report.markup import inline, one_line
from minibench.report.style import STYLE

__all__ = ["to_html"]

# Pixels of a chart for each rem (16 px) of the page: sharp on screens of up to 1.4 times that density.
PIXELS_PER_REM = 22.5
_KINDS = {".png": "image/png", ".jpg": "image/jpeg"}


def to_html(title: str, sections: Iterable[Section], pictures: Path) -> str:
    """The whole page, well-formed as XML too; ``pictures``: the folder whose files are embedded."""
    sections = list(sections)
    links = [f'<a href="#{s.key}">{_text(s.title)}</a>' for s in sections if s.title]
    body = [f"<header><h1>{_text(title)}</h1></header>"]
    for index, section in enumerate(sections):
        body.append(f'<section id="{section.key}">')
        if section.title:
            body.append(f"<h2>{_text(section.title)}</h2>")
        body += [_block(block, pictures) for block in section.blocks]
        body.append("</section>")
        if index == 0 and len(links) > 1:
            body.append(f'<nav aria-label="Sections">{" ".join(links)}</nav>')
    head = (
        '<meta charset="utf-8"/><meta name="viewport" content="width=device-width, initial-scale=1"/>'
        '<meta name="color-scheme" content="light dark"/>'
        f"<title>{_text(title)}</title><style>{STYLE}</style>"
    )
    content = "\n".join(body)
    body = f"<body>\n<main>\n{content}\n</main>\n</body>"
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>{head}</head>\n{body}\n</html>\n'


def _block(block, pictures: Path) -> str:
    match block:
        case Paragraph(text=text, lead=lead):
            return f'<p class="lead">{_inline(text)}</p>' if lead else f"<p>{_inline(text)}</p>"
        case Note(text=text):
            return f'<p class="note">{_inline(text)}</p>'
        case Bullets(items=items):
            return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>"
        case Table():
            return _table(block)
        case Pictures(items=items, layout=layout):
            return f'<div class="charts {layout}">' + "".join(_figure(item, pictures) for item in items) + "</div>"
        case Strip(title=title, items=items):
            tiles = "".join(_figure(item, pictures, above=True) for item in items)
            label = f'role="group" tabindex="0" aria-label="{_plain(title)}"'
            return f'<h3>{_inline(title)}</h3><div class="strip" {label}>{tiles}</div>'
    raise TypeError(f"no HTML for {type(block).__name__}")


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col"{_kind(table, i)}>{_inline(text)}</th>' for i, text in enumerate(table.columns))
    rows = "".join(_row(row, table) for row in table.rows)
    # The caption stands outside what scrolls, where a phone shows all of it.
    label = _plain(table.caption)
    inner = f'<table aria-label="{label}"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    scroll = f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">{inner}</div>'
    return f'<div class="table"><p class="caption">{_inline(table.caption)}</p>{scroll}</div>'


def _row(row: Row, table: Table) -> str:
    if row.kind == "group":
        heading = _inline(row.cells[0].text)
        return f'<tr class="group"><th scope="rowgroup" colspan="{len(table.columns)}"><span>{heading}</span></th></tr>'
    first = f'<th scope="row">{_cell(row.cells[0])}</th>'
    rest = "".join(f"<td{_kind(table, i + 1, cell)}>{_cell(cell)}</td>" for i, cell in enumerate(row.cells[1:]))
    return f'<tr class="{row.kind}">{first}{rest}</tr>' if row.kind else f"<tr>{first}{rest}</tr>"


def _kind(table: Table, index: int, cell: Cell | None = None) -> str:
    names = ["text"] if index in table.text else []
    if cell is not None:
        names += [name for name in (cell.tone, "best" if cell.best else "") if name]
    return f' class="{" ".join(names)}"' if names else ""


def _cell(cell: Cell) -> str:
    text = _inline(cell.text)
    text = f"<strong>{text}</strong>" if cell.best else text
    return f'{text} <span class="sd">{_inline(cell.detail)}</span>' if cell.detail else text


def _figure(picture: Picture, pictures: Path, above: bool = False) -> str:
    path = pictures / picture.file
    with Image.open(path) as image:
        width, height = image.size
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    source = f"data:{_KINDS[path.suffix]};base64,{data}"
    alt = _attribute(picture.alt)
    # Charts have small text, so none is shown larger or, side by side, at another scale than it is meant to be.
    style = "" if above else f' style="max-width:{width / PIXELS_PER_REM:.1f}rem"'
    image = f'<img src="{source}" alt="{alt}" width="{width}" height="{height}"{style}/>'
    caption = f"<figcaption>{_inline(picture.caption)}</figcaption>" if picture.caption else ""
    return f"<figure>{caption}{image}</figure>" if above else f"<figure>{image}{caption}</figure>"


def _plain(text: str) -> str:
    """For an attribute."""
    return _attribute(re.sub(r"[*`]", "", text))


def _attribute(text: str) -> str:
    return escape(one_line(text), quote=True)


def _inline(text: str) -> str:
    return inline(text, _text, lambda code: f"<code>{_text(code)}</code>", ("<strong>", "</strong>"))


def _text(text: str) -> str:
    return escape(one_line(text), quote=False)
