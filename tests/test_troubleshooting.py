"""The pages on problems quote messages as the sources have them, and cover every module that refuses something."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("PADing", "d2zero", "frozenclip", "baselines", "d2lite/src", "tools", "minibench", "datasets", "demo")
PAGES = (
    "troubleshooting.md",
    "distributed.md",
    "slurm.md",
    "reliability.md",
    "emoji_track.md",
    "feature_track.md",
    "minibench_v2_causes.md",
    "val2017.md",
)
GAP = "\0"  # what varies in a message
# Not on a page: what passes on messages of others, and mistakes of the maintainers.
WITHOUT = {
    "PADing/errors.py",
    "PADing/config_reference.py",
    "PADing/data/mini_v2/split_files.py",
    "PADing/evaluation/processes.py",
}


@cache
def quoted() -> dict[str, re.Pattern]:
    """Messages in the first column of the pages' tables; ``...`` stands for what varies. Those of others are marked."""
    found = {}
    pages = "".join(path.read_text(encoding="utf-8") for name in PAGES if (path := ROOT / "docs" / name).exists())
    for cell in re.findall(r"^\| (`[^|]*?`(?: \(\w+\))?) \|", pages, re.M):
        for message in re.findall(r"`([^`]+)`", cell) if not cell.endswith(")") else ():
            found[message] = re.compile(".*?".join(map(re.escape, message.split("..."))), re.S)
    return found


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return "".join(_text(part) if isinstance(part, ast.Constant) else GAP for part in node.values)


@cache
def modules() -> dict[str, tuple[ast.Module, list[str]]]:
    """By path: the code, and its texts without docstrings."""
    found = {}
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts = [
            re.sub(r"%[.\d]*[sdfr]", GAP, _text(node))
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in docstrings
        ]
        found[path.relative_to(ROOT).as_posix()] = tree, texts
    return found


def _raises_user_error(tree: ast.Module) -> bool:
    raised = (node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call))
    return any(isinstance(call.func, ast.Name) and call.func.id == "UserError" for call in raised)


def test_there_are_messages():
    assert len(quoted()) > 100


def test_messages_are_quoted_as_they_are_printed():
    texts = [text for _, found in modules().values() for text in found] + [(ROOT / "Makefile").read_text()]
    absent = [message for message, pattern in quoted().items() if not any(map(pattern.search, texts))]
    assert not absent, f"no source has {absent}"


@pytest.mark.parametrize("path", [path for path, (tree, _) in modules().items() if _raises_user_error(tree)])
def test_modules_that_refuse_something_are_on_a_page(path):
    texts = modules()[path][1]
    assert path in WITHOUT or any(pattern.search(text) for pattern in quoted().values() for text in texts)
