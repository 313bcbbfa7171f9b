"""Reads XML element by element with Python's own expat; a document type, and so every entity, is refused.

That is what ``defusedxml`` does with ``forbid_dtd``. Expat alone gives it here, with bounded memory and no dependency.
"""

import xml.parsers.expat
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from PADing.errors import UserError

_BLOCK = 2**18
_DEEPEST = 64


def elements(path: Path, tags: frozenset[str]) -> Iterator[Element]:
    """Each element called as one of ``tags`` with its children, when it ends; other elements are not kept.

    Raises:
        UserError: not XML, a document type, or elements nested more than 64 deep.
    """
    parser = xml.parsers.expat.ParserCreate()
    stack: list[Element | None] = []
    done: list[Element] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        if len(stack) >= _DEEPEST:
            raise UserError(f"{path} is refused: its elements are nested more than {_DEEPEST} deep.")
        parent = stack[-1] if stack else None
        element = Element(tag, attributes) if parent is not None or tag in tags else None
        if parent is not None and element is not None:
            parent.append(element)
        stack.append(element)

    def end(_: str) -> None:
        element = stack.pop()
        if element is not None and (not stack or stack[-1] is None):
            done.append(element)

    def text(data: str) -> None:
        if stack and stack[-1] is not None:
            stack[-1].text = (stack[-1].text or "") + data

    def refuse(*_: object) -> None:
        raise UserError(f"{path} is refused: its document type could define entities that fill the memory.")

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.buffer_text = True
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                parser.Parse(block)
                yield from done
                done.clear()
        parser.Parse(b"", True)
    except (xml.parsers.expat.ExpatError, LookupError, ValueError) as error:
        raise UserError(f"{path} is not valid XML: {error}.") from error
    yield from done
