"""Blocks -> one HTML file that needs nothing beside it; ``report.html`` is the template, ``style.css`` its style."""

import base64
import re
from collections.abc import Iterable
from pathlib import Path

import PIL.Image
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from minibench.report.document import Bullets, Section, Table, Text, inline, one_line

# Pixels of a chart for each rem (16 px) of the page: sharp on screens of up to 1.4 times that density.
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

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    kinds = {"text": Text, "bullets": Bullets, "table": Table}
    environment.tests |= {name: lambda block, kind=kind: isinstance(block, kind) for name, kind in kinds.items()}
    environment.filters |= {"inline": _inline, "line": one_line, "plain": lambda s: one_line(re.sub("[*`]", "", s))}
    return environment.get_template("report.html").render(title=title, sections=list(sections), embedded=embedded)


def _inline(text: str) -> Markup:
    code = "<code>{}</code>"
    return Markup(inline(text, escape, lambda s: code.format(escape(s)), ("<strong>", "</strong>")))
