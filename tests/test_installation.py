"""A newcomer's two install steps, and what set-up says when packages do not fit together."""

import importlib.metadata
import re
import sys
from pathlib import Path

import pytest
import torch

from PADing.installation import torchvision_problem

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def torchvision(tmp_path, monkeypatch):
    """``torchvision(code)``: an installed torchvision 0.19.0, made for torch 2.4.0, whose import runs ``code``."""

    def install(code: str) -> None:
        (tmp_path / "torchvision").mkdir()
        (tmp_path / "torchvision" / "__init__.py").write_text(code)
        info = tmp_path / "torchvision-0.19.0.dist-info"
        info.mkdir()
        needs = "Requires-Dist: numpy\nRequires-Dist: torch ==2.4.0\n"
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torchvision\nVersion: 0.19.0\n{needs}")
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(tmp_path)

    yield install
    sys.modules.pop("torchvision", None)


def test_a_torchvision_for_another_torch_is_named_with_its_cure(torchvision, monkeypatch):
    """What torchvision itself says, "operator torchvision::nms does not exist", helps nobody."""
    torchvision("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    text = torchvision_problem()
    assert "torchvision 0.19.0 (made for torch 2.4.0) does not work with torch 2.13.0+cpu" in text
    assert '"torchvision==0.28.*"' in text and "(cpu)" in text  # 2.4 <-> 0.19, ..., 2.13 <-> 0.28


def test_a_torchvision_that_works_is_no_problem(torchvision):
    torchvision("")
    assert torchvision_problem() == ""


def test_no_torchvision_is_no_problem(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert torchvision_problem() == ""


def test_the_published_install_steps_bring_this_project():
    """``pip install -r requirements.txt`` and ``sh make.sh``: without ``-e .`` tools cannot import PADing."""
    lines = [line.split("#")[0].strip() for line in (REPOSITORY / "requirements.txt").read_text().splitlines()]
    assert "-e ." in lines
    assert (REPOSITORY / "PADing" / "modeling" / "pixel_decoder" / "ops" / "make.sh").is_file()
    packages = re.search(r"include = \[(.*)\]", (REPOSITORY / "pyproject.toml").read_text())[1]
    tops = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")} - {"tests"}
    assert tops <= {name.strip(' "*') for name in packages.split(",")}


def _names(lines: list[str]) -> dict[str, str]:
    """Normalised package name -> the rest of its line."""
    found = [re.match(r"\s*([A-Za-z0-9._-]+)(.*)", line.split("#")[0].split(";")[0]) for line in lines]
    return {hit[1].lower().replace("_", "-"): hit[2].strip() for hit in found if hit}


def test_the_oldest_versions_that_are_tried_are_those_that_are_allowed():
    tomllib = pytest.importorskip("tomllib", reason="part of Python 3.11 and newer")
    ranges = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    lines = (REPOSITORY / "requirements-oldest.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [line.replace(">=", "==") for line in ranges]


def test_optional_parts_have_what_the_tests_and_the_documentation_need():
    tomllib = pytest.importorskip("tomllib", reason="part of Python 3.11 and newer")
    parts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    offered = _names([line for part in parts.values() for line in part if not line.startswith("pading")])
    for file in ("dev", "docs"):
        pins = [line for line in (REPOSITORY / f"requirements-{file}.txt").read_text().splitlines() if "==" in line]
        for line in pins:
            ((name, pin),) = _names([line]).items()
            assert name in offered, f"{line} is in no part of pyproject.toml"
            wanted, got = (tuple(map(int, re.findall(r"\d+", text)[:3])) for text in (offered[name], pin))
            assert got >= wanted, line
    # What messages tell users to install.
    for path in (REPOSITORY / "PADing").rglob("*.py"):
        for group in re.findall(r"pading\[([a-z,]+)\]", path.read_text()):
            assert set(group.split(",")) <= set(parts), path


def test_the_lock_pins_every_dependency_within_its_range():
    """A dependency that the tests never see, or in a version that the wheel forbids, breaks users first."""
    tomllib = pytest.importorskip("tomllib", reason="part of Python 3.11 and newer")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    ranges = _names(project["dependencies"])
    lock = [line for line in (REPOSITORY / "requirements.txt").read_text().splitlines() if "==" in line]
    assert set(ranges) <= set(_names(lock))
    for line in lock:
        ((name, pin),) = _names([line]).items()
        if name in ranges:
            wanted, got = (tuple(map(int, re.findall(r"\d+", text)[:3])) for text in (ranges[name], pin))
            assert got >= wanted, f"{line}: pyproject.toml wants {ranges[name]}"
