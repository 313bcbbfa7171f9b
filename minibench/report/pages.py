"""Makes pages of blocks, with the templates ``report.html`` (self-contained) and ``report.md.jinja``."""

import base64
import re
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path

import PIL.Image
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from minibench.report.document import Bullets, Row, Section, Table, Text, inline, one_line

# Pixels of a chart per rem (16 px) of the page: sharp on screens of up to 1.4 times that density.
PIXELS_PER_REM = 22.5
_KINDS = {".png": "image/png", ".jpg": "image/jpeg"}


def to_html(title: str, sections: Iterable[Section], images: Path) -> str:
    """The whole page; ``images``: the folder whose files are embedded."""

    def embedded(file: str) -> dict:
        path = images / file
        with PIL.Image.open(path) as content:
            width, height = content.size
        source = f"data:{_KINDS[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
        return {"source": source, "width": width, "height": height, "rem": f"{width / PIXELS_PER_REM:.1f}"}

    def plain(text: str) -> str:
        return one_line(re.sub("[*`]", "", text))

    environment = _environment(True, line=one_line, plain=plain, inline=lambda text: Markup(_html(text)))
    return environment.get_template("report.html").render(title=title, sections=list(sections), embedded=embedded)


def _html(text: str) -> str:
    return inline(text, escape, lambda code: f"<code>{escape(code)}</code>", ("<strong>", "</strong>"))


def to_markdown(title: str, sections: Iterable[Section], images: str = "pictures") -> str:
    """The whole page, for code hosting sites; ``images``: their folder, relative to the page."""
    environment = _environment(False, inline=_markdown, cells=_cells, alignments=_alignments)
    return environment.get_template("report.md.jinja").render(title=title, sections=sections, images=images)


def _alignments(table: Table) -> list[str]:
    return [":---" if i == 0 or i in table.text else "---:" for i in range(len(table.columns))]


def _cells(row: Row, table: Table) -> list[str]:
    texts = [" ".join(part for part in (cell.text, cell.detail) if part) for cell in row.cells]
    bold = [cell.best or row.kind == "group" for cell in row.cells]
    cells = [f"**{_markdown(t.replace('**', ''))}**" if b else _markdown(t) for t, b in zip(texts, bold, strict=True)]
    cells[0] = f"· {cells[0]}" if row.kind == "sub" else cells[0]
    return cells + [""] * (len(table.columns) - len(cells))


def _markdown(text: str) -> str:
    def plain(part: str) -> str:
        """Escape characters that would start a tag, a link, an entity or an emphasis."""
        part = re.sub(r"&(?=#|\w+;)", "&amp;", part).replace("<", "&lt;").replace("\\", "&#92;")
        return re.sub(r"([*`\[\]])", r"\\\1", part)

    # Code has no markup, but a backslash in it would cancel the one before a table's "|".
    return inline(text, plain, lambda code: f"`{code.replace(chr(92), '/')}`", ("**", "**"))


def _environment(autoescape: bool, **filters: Callable) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters |= filters
    kinds = {"text": Text, "bullets": Bullets, "table": Table}
    environment.tests |= {name: lambda block, kind=kind: isinstance(block, kind) for name, kind in kinds.items()}
    return environment
