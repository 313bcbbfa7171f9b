"""The pages, and the commands and Python examples on them, each with its place."""

import ast
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("PADing", "d2zero", "frozenclip", "baselines", "d2lite", "minibench", "examples")
PACKAGES += ("tools", "demo", "datasets")
PAGES = sorted(
    {
        *REPOSITORY.glob("*.md"),
        *(REPOSITORY / "docs").rglob("*.md"),
        *(page for folder in (*PACKAGES, "tests", "embeddings") for page in (REPOSITORY / folder).rglob("*.md")),
    }
)
# Scripts and modules whose docstrings show how they are called.
MODULES = sorted(
    [*REPOSITORY.glob("*.py"), *(path for folder in PACKAGES for path in (REPOSITORY / folder).rglob("*.py"))]
)
# A line of a docstring, or inline code on a page, that is a command of ours.
OURS = r"(?:\w+=\S+ +)*(?:python3? +(?:-[mc] +\S|\S+\.py\b)|torchrun +-|make +[a-z-]+(?=`| *$| +[A-Z]+=)|sh +\S+\.sh)"
FENCE = re.compile(r"^( *)(```+|~~~+) *([^\n`]*)\n(.*?)^\1?\2 *$", re.MULTILINE | re.DOTALL)
SHELLS = ("sh", "bash", "shell", "console")


@dataclass(frozen=True)
class Command:
    """One simple command: ``words``, with the ``environment`` that stands before them; ``inline``: in a sentence."""

    page: str
    line: int
    text: str
    words: tuple[str, ...] = field(compare=False)
    environment: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    inline: bool = field(default=False, compare=False)

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def commands_of(path: Path) -> list[Command]:
    """All commands of a page, or of the docstring of a module, in order."""
    lines = _docstring_lines(path) if path.suffix == ".py" else _page_lines(path)
    return list(_commands(name_of(path), lines))


def python_blocks(path: Path) -> list[tuple[int, str]]:
    """(line, code) of every Python example on a page."""
    text = path.read_text(encoding="utf-8")
    blocks = [match for match in FENCE.finditer(text) if match[3].strip() == "python"]
    return [(_line(text, match.start(4)), re.sub(f"^{match[1]}", "", match[4], flags=re.M)) for match in blocks]


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _page_lines(path: Path) -> Iterator[tuple[int, str, bool]]:
    """(line, text, whether in a sentence) of commands: shell blocks whole, elsewhere what begins as one of ours."""
    text = path.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        shell = match[3].strip() in SHELLS
        found += _joined(match[4], _line(text, match.start(4)), only_ours=not shell)
    rest = FENCE.sub(lambda match: re.sub(r"[^\n]", "", match[0]), text)
    found += _joined(rest, 1, only_ours=True, indented=True)
    for match in re.finditer(rf"`({OURS}(?:[^`\n]|\n(?!\n))*)`", rest):
        found.append((_line(rest, match.start()), " ".join(match[1].split()).replace("\\|", "|"), True))
    yield from sorted(found)


def _docstring_lines(path: Path) -> Iterator[tuple[int, str, bool]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    doc = ast.get_docstring(tree, clean=False)
    for line, text, inline in _joined(
        doc or "", tree.body[0].lineno if doc else 1, only_ours=True, indented=True, bare=True
    ):
        if " [-" not in text:  # a synopsis
            yield line, re.split(r" {3,}", text)[0], inline  # without the explanation behind it


def _joined(text: str, first: int, only_ours: bool, indented: bool = False, bare: bool = False):
    """(line, text) of each line with its continuations; ``indented``: only such that are (or all that are ours)."""
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        start, line = number, lines[number]
        while line.endswith("\\") and number + 1 < len(lines):
            number += 1
            line = f"{line[:-1].rstrip()} {lines[number].strip()}"
        while not only_ours and _is_open(line) and number + 1 < len(lines):  # a text of several lines in quotes
            number += 1
            line = f"{line}\n{lines[number]}"
        number += 1
        ours = re.match(OURS, line.strip()) and (not indented or bare or line.startswith("    "))
        if line.strip() and (ours or not only_ours):
            yield first + start, line.strip().removeprefix("$ "), False


def _is_open(line: str) -> bool:
    """Whether a quotation goes on behind the line."""
    try:
        shlex.split(line, comments=True)
    except ValueError:
        return True
    return False


def _commands(page: str, lines: Iterable[tuple[int, str, bool]]) -> Iterator[Command]:
    variables: dict[str, str] = {}
    for number, text, inline in lines:
        try:
            tokens = _tokens(_substituted(text, variables))
        except ValueError as error:
            raise AssertionError(f"{page}:{number}: {text}\n  cannot be read as a shell line: {error}") from None
        for words in _simple(tokens):
            if words[0] == "for" and words[2:3] == ["in"]:
                variables[words[1]] = words[3]
                continue
            while words and words[0] in ("do", "then", "else", "if", "!", "time", "nice", "nohup", "sudo"):
                words = words[1:]
            assigned = []
            if words and words[0] == "export":
                words = words[1:]
            while words and re.fullmatch(r"[A-Za-z_]\w*=.*", words[0], flags=re.DOTALL):
                assigned.append(tuple(words[0].split("=", 1)))
                words = words[1:]
            if words and words[0] not in ("done", "fi", "esac"):
                yield Command(page, number, text, tuple(words), tuple(assigned), inline)
            elif assigned:
                variables.update(assigned)


def _substituted(text: str, variables: dict[str, str]) -> str:
    """With the variables that the page has set (of a loop, the first value)."""
    return re.sub(r"\$\{?(\w+)\}?", lambda match: variables.get(match[1], match[0]), text)


def _tokens(text: str) -> list[str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";|&<>")
    lexer.whitespace_split, lexer.commenters = True, "#"
    return list(lexer)


def _simple(tokens: list[str]) -> Iterator[list[str]]:
    """Split at ``;``, ``&&``, ``|``; without redirections."""
    words: list[str] = []
    skip = False
    for token in [*tokens, ";"]:
        if skip and token != ";":
            skip = False
        elif set(token) <= set("<>&") and set(token) & set("<>"):
            skip = True
            if words and words[-1] in ("1", "2"):
                words.pop()
        elif set(token) <= set(";|&"):
            if words:
                yield words
            words = []
        else:
            words.append(token)
    assert not words, f"a redirection leads nowhere: {tokens}"
