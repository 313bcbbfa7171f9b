"""Blocks -> one HTML file that needs nothing beside it: style and images are inside, and there is no script."""

import base64
import re
from collections.abc import Iterable
from html import escape
from pathlib import Path

import PIL.Image

from minibench.report.document import Block, Bullets, Cell, Image, Images, Row, Section, Table, Text, inline, one_line

# Pixels of a chart for each rem (16 px) of the page: sharp on screens of up to 1.4 times that density.
PIXELS_PER_REM = 22.5
_KINDS = {".png": "image/png", ".jpg": "image/jpeg"}


def to_html(title: str, sections: Iterable[Section], images: Path) -> str:
    """The whole page, well-formed as XML too; ``images``: the folder whose files are embedded."""
    sections = list(sections)
    links = [f'<a href="#{s.key}">{_text(s.title)}</a>' for s in sections if s.title]
    body = [f"<header><h1>{_text(title)}</h1></header>"]
    for index, section in enumerate(sections):
        heading = [f"<h2>{_text(section.title)}</h2>"] if section.title else []
        blocks = [_block(block, images) for block in section.blocks]
        body += [f'<section id="{section.key}">', *heading, *blocks, "</section>"]
        if index == 0 and len(links) > 1:
            body.append(f'<nav aria-label="Sections">{" ".join(links)}</nav>')
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    head = (
        '<meta charset="utf-8"/><meta name="viewport" content="width=device-width, initial-scale=1"/>'
        '<meta name="color-scheme" content="light dark"/>'
        f"<title>{_text(title)}</title><style>\n{style}</style>"
    )
    content = "\n".join(["<body>", "<main>", *body, "</main>", "</body>"])
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>{head}</head>\n{content}\n</html>\n'


def _block(block: Block, images: Path) -> str:
    match block:
        case Text(text=text, kind=kind):
            return f'<p class="{kind}">{_inline(text)}</p>' if kind else f"<p>{_inline(text)}</p>"
        case Bullets(items=items):
            return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>"
        case Table():
            return _table(block)
        case Images(items=items, layout="strip", title=title):
            tiles = "".join(_figure(item, images, above=True) for item in items)
            label = f'role="group" tabindex="0" aria-label="{_plain(title)}"'
            return f'<h3>{_inline(title)}</h3><div class="strip" {label}>{tiles}</div>'
        case Images(items=items, layout=layout):
            return f'<div class="charts {layout}">' + "".join(_figure(item, images) for item in items) + "</div>"


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
    cells = [f"<td{_kind(table, i, cell)}>{_cell(cell)}</td>" for i, cell in enumerate(row.cells)]
    cells[0] = f'<th scope="row">{_cell(row.cells[0])}</th>'
    kind = f' class="{row.kind}"' if row.kind else ""
    return f"<tr{kind}>{''.join(cells)}</tr>"


def _kind(table: Table, index: int, cell: Cell | None = None) -> str:
    names = ["text"] if index in table.text else []
    if cell is not None:
        names += [name for name in (cell.tone, "best" if cell.best else "") if name]
    return f' class="{" ".join(names)}"' if names else ""


def _cell(cell: Cell) -> str:
    text = _inline(cell.text)
    text = f"<strong>{text}</strong>" if cell.best else text
    return f'{text} <span class="sd">{_inline(cell.detail)}</span>' if cell.detail else text


def _figure(image: Image, images: Path, above: bool = False) -> str:
    path = images / image.file
    with PIL.Image.open(path) as content:
        width, height = content.size
    source = f"data:{_KINDS[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
    # Charts have small text, so none is shown larger or, side by side, at another scale than it is meant to be.
    style = "" if above else f' style="max-width:{width / PIXELS_PER_REM:.1f}rem"'
    tag = f'<img src="{source}" alt="{_attribute(image.alt)}" width="{width}" height="{height}"{style}/>'
    caption = f"<figcaption>{_inline(image.caption)}</figcaption>" if image.caption else ""
    return f"<figure>{caption}{tag}</figure>" if above else f"<figure>{tag}{caption}</figure>"


def _plain(text: str) -> str:
    """For an attribute, without the marks of bold text and code."""
    return _attribute(re.sub(r"[*`]", "", text))


def _attribute(text: str) -> str:
    return escape(one_line(text), quote=True)


def _inline(text: str) -> str:
    return inline(text, _text, lambda code: f"<code>{_text(code)}</code>", ("<strong>", "</strong>"))


def _text(text: str) -> str:
    return escape(one_line(text), quote=False)
