"""Python examples on the pages compile, and what they import exists. Those of docs/your_method.md are run elsewhere."""

import ast
import importlib

import pytest

from tests.documents.pages import PAGES, name_of, python_blocks

SOURCES = [path for path in PAGES if python_blocks(path)]
OTHERS = ("my_", "open_clip", "gensim", "onnx")  # a reader's own module, optional packages, our runner's copy


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_of_examples_exist(path):
    for line, code in python_blocks(path):
        place = f"{name_of(path)}:{line}"
        try:
            tree = ast.parse(code)
        except SyntaxError as error:
            raise AssertionError(f"{place}: {error}") from None
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if not alias.name.startswith(OTHERS):
                        importlib.import_module(alias.name)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith(OTHERS):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{place}: {node.module} has no {alias.name}"
