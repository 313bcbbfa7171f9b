"""What the pages name exists: files, links, commands with their flags, and config keys."""

import contextlib
import io
import itertools
import re
import runpy
import shlex
import sys
from functools import cache
from pathlib import Path

import pytest

from PADing.config import load_config

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "MODEL_ZOO.md", "datasets/README.md", "tests/golden/README.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
    REPOSITORY / "PADing" / "modeling" / "pixel_decoder" / "ops" / "README.md",
]
FOLDERS = "PADing|baselines|configs|d2lite|d2zero|datasets|demo|docs|embeddings|examples|minibench|tests|tools"
# What commands make, and what users download or write.
MADE = re.compile(r"datasets/(coco|mini|my_|own)|embeddings/(mine|coco/coco_clip_vitb16\.npz)|\.(jpg|png)$|output/")
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
        if not MADE.search(path) and not any(list(folder.glob(path)) for folder in (REPOSITORY, page.parent)):
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


def _commands(page: Path) -> list[list[str]]:
    """Words of every command that starts Python, in blocks and in backticks."""
    text = re.sub(r"\\\n\s*", " ", _read(page))
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(python [^`\n]+)`", text)
    words = [shlex.split(line, comments=True) for line in lines if re.match(r"(\w+=\S+ )*python ", line)]
    return [command[command.index("python") :] for command in words]


@cache
def _help(*words: str) -> str:
    """What a script (or ``-m module``), with its subcommand, says to ``--help``."""
    said, argv = io.StringIO(), sys.argv
    run = runpy.run_module if words[0] == "-m" else runpy.run_path
    name, rest = (words[1], words[2:]) if words[0] == "-m" else (str(REPOSITORY / words[0]), words[1:])
    sys.argv = [name, *rest, "--help"]
    try:
        with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as end:
            run(name, run_name="__main__")
    finally:
        sys.argv = argv
    assert end.value.code in (0, None), words
    return said.getvalue()


@every_page
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_commands_and_flags_exist(page, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    for _, *words in _commands(page):
        if words[0] in ("-c", "setup.py") or words[:2] in (["-m", "pytest"], ["-m", "d2lite"]):
            continue
        script = 2 if words[0] == "-m" else 1
        if words[:script] in (["-m", "PADing.installation"], ["-m", "tests.golden.reduce"]):
            continue  # without flags
        flags = [word.split("=")[0] for word in words if word.startswith("--")]
        subcommand = words[script : script + 1] if script < len(words) and re.fullmatch("[a-z]+", words[script]) else []
        text = _help(*words[:script], *subcommand)
        for flag in flags:
            assert re.search(rf"(?<![\w-]){flag}(?![\w-])", text), f"{' '.join(words)}: no flag {flag}"


@pytest.fixture(scope="module")
def cfg():
    return load_config("", ["PLUGINS", '("d2zero",)'])


@every_page
def test_config_keys_exist(page, cfg):
    sections = "|".join(key for key, value in cfg.items() if hasattr(value, "items"))
    for key in set(re.findall(rf"(?<![\w.])(?:{sections})(?:\.[A-Z][A-Z0-9_]*)+(?![\w.*])", _read(page))):
        node = cfg
        for part in key.split(".") if ".MY_" not in key else ():  # a key of an imagined plug-in
            assert part in node, f"{key}: there is no {part}"
            node = node[part]


def test_environment_variables_are_documented():
    """A switch that stands in the code alone is found by nobody who needs it."""
    code = [
        path for folder in ("PADing", "d2zero", "tools", "minibench") for path in (REPOSITORY / folder).rglob("*.py")
    ]
    used = {name for path in code for name in re.findall(r"\bPADING_[A-Z_]*[A-Z]\b", _read(path))}
    documented = set(re.findall(r"\bPADING_[A-Z_]*[A-Z]\b", _read(REPOSITORY / "docs" / "installation.md")))
    assert used and used == documented
