"""Of the documentation site, what can be checked without building it (`make docs` does the rest)."""

import importlib
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
PAGES = [page for kind in ("*.md", "*.ipynb") for page in DOCS.rglob(kind) if "_build" not in page.parts]


@pytest.mark.parametrize("page", sorted((DOCS / "api").glob("*.md")), ids=lambda page: page.name)
def test_what_the_api_pages_describe_exists(page):
    names = re.findall(r"^\.\. auto\w+:: (\S+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert names
    for name in names:
        module, _, last = name.rpartition(".")
        assert hasattr(importlib.import_module(module), last), name


def test_every_page_is_in_a_table_of_contents():
    named = {DOCS / "index.md"}
    for page in PAGES:
        for block in re.findall(
            r"^```\{toctree\}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        ):
            for line in (line for line in block.splitlines() if line and not line.startswith(":")):
                named |= {found for end in ("", ".md", ".ipynb") for found in page.parent.glob(line + end)}
    assert set(PAGES) <= named


def test_packages_of_the_site_are_pinned_with_a_reason():
    lines = (REPOSITORY / "requirements-docs.txt").read_text(encoding="utf-8").splitlines()
    for line in lines:
        assert line.startswith("#") or re.match(
            r"[\w-]+==[\d.]+\S*(; python_version [<>=]+ \"3\.\d+\")? +# \S|.*< \"3.11\"$", line
        )
