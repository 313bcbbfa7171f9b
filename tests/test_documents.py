"""What the pages name exists: files, links and config keys. Commands are parsed and run by tests/documents."""

import itertools
import re
from pathlib import Path

import pytest

from PADing.config import load_config
from tests.documents.pages import PAGES, REPOSITORY

FOLDERS = "PADing|baselines|configs|d2lite|d2zero|datasets|demo|docs|embeddings|examples|frozenclip|minibench"
FOLDERS += "|tests|tools"
# What commands make, and what users download or write.
MADE = re.compile(
    r"datasets/(coco|mini|emoji|my_|own|59_)|embeddings/(mine|evaluation_sets|coco/coco_clip_\w+)\b|\.(jpg|png)$|output/"
)
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))


def _read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _expand(path: str) -> list[str]:
    """``a/{b,c}.yaml`` -> ``a/b.yaml``, ``a/c.yaml``."""
    parts = [part.split(",") for part in re.split(r"\{([^}]*)\}", path)]
    parts = [choices if i % 2 else [",".join(choices)] for i, choices in enumerate(parts)]
    return ["".join(words) for words in itertools.product(*parts)]


@every_page
def test_files_exist(page):
    words = re.findall(rf"(?<![\w./-])(?:{FOLDERS})/[\w./{{}},*-]*", _read(page))
    absent = []
    for path in itertools.chain.from_iterable(_expand(word.rstrip(".,")) for word in words):
        path = path.rstrip("/")
        if not MADE.search(path) and not any(
            list(folder.glob(path)) for folder in (REPOSITORY, page.parent, page.parent / "src")
        ):
            absent.append(path)
    assert not absent


@every_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", _read(page)):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", _read(file), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, target


@pytest.fixture(scope="module")
def cfg():
    return load_config("", ["PLUGINS", '("d2zero", "frozenclip")'])


@every_page
def test_config_keys_exist(page, cfg):
    sections = "|".join(key for key, value in cfg.items() if hasattr(value, "items"))
    for key in set(re.findall(rf"(?<![\w.])(?:{sections})(?:\.[A-Z][A-Z0-9_]*)+(?![\w.*])", _read(page))):
        node = cfg
        for part in key.split(".") if ".MY_" not in key else ():  # a key of an imagined plug-in
            assert part in node, f"{key}: there is no {part}"
            node = node[part]


def test_environment_variables_are_documented():
    """Every environment variable that the code reads is on some page, and the other way round."""
    folders = ("PADing", "d2zero", "frozenclip", "tools", "minibench")
    code = [path for folder in folders for path in (REPOSITORY / folder).rglob("*.py")]
    used = {name for path in code for name in re.findall(r"\bPADING_[A-Z_]*[A-Z]\b", _read(path))}
    documented = {name for page in PAGES for name in re.findall(r"\bPADING_[A-Z_]*[A-Z]\b", _read(page))}
    assert used and used == documented
