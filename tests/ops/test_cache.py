"""A cached kernel is code: only what this user (or root) alone can have written is ever loaded."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from PADing.modeling.pixel_decoder.ops import backends, build

REPOSITORY = Path(build.__file__).parents[4]
STRANGER = 4711
pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="owners and modes are those of Unix")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder for the test, no library built ahead of time, and a compiler that writes a word instead of code."""
    for name in ("TORCH_EXTENSIONS_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(build, "HERE", tmp_path / "without-lib")
    monkeypatch.setattr(build, "missing", lambda kind: None)
    monkeypatch.setattr(build, "_compile", _fake_compile)
    return tmp_path


def _fake_compile(kind: str, target: Path) -> None:
    work = target.with_suffix(".new")
    work.write_text("compiled here")
    build._place(work, target)


def _give_to_a_stranger(path: Path, monkeypatch) -> None:
    """Another user's file; without the right to give it away, become another user instead."""
    if os.geteuid() == 0:
        os.chown(path, STRANGER, STRANGER)
    else:
        user = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: user + 1)


def _plant(folder: Path) -> Path:
    folder.mkdir(parents=True, mode=0o700)
    library = folder / build.library_name("cpu")
    library.write_text("planted")
    library.chmod(0o755)
    return library


def test_the_users_own_library_is_found_again(home):
    assert build.libraries("cpu") == []
    path = build.build("cpu")
    assert path.parent == home / ".cache" / "pading-msda" and build.libraries("cpu") == [path]
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("what", ["library", "folder"])
def test_another_users_library_is_not_loaded(home, monkeypatch, what):
    planted = _plant(home / ".cache" / "pading-msda")
    _give_to_a_stranger(planted if what == "library" else planted.parent, monkeypatch)
    assert build.libraries("cpu") == []
    built = build.build("cpu")  # over the planted file in the user's folder, else elsewhere
    assert built.read_text() == "compiled here"


@pytest.mark.parametrize(
    "who, mode", [("library", 0o777), ("folder", 0o777), ("parent", 0o777), ("library", 0o775), ("folder", 0o770)]
)
def test_what_others_can_change_is_not_loaded(home, who, mode):
    planted = _plant(home / ".cache" / "pading-msda")
    place = {"library": planted, "folder": planted.parent, "parent": planted.parent.parent}[who]
    place.chmod(mode)
    assert build.libraries("cpu") == []
    assert build.build("cpu").read_text() == "compiled here"


def test_a_symbolic_link_is_not_followed(home, tmp_path):
    elsewhere = _plant(tmp_path / "elsewhere")
    folder = home / ".cache" / "pading-msda"
    folder.parent.mkdir()
    folder.symlink_to(elsewhere.parent)
    assert build.libraries("cpu") == []
    folder.unlink()
    folder.mkdir(mode=0o700)
    (folder / elsewhere.name).symlink_to(elsewhere)
    assert build.libraries("cpu") == []
    assert build.build("cpu").read_text() == "compiled here" and elsewhere.read_text() == "planted"


def test_a_sticky_parent_is_fine(home, monkeypatch, tmp_path):
    """TORCH_EXTENSIONS_DIR=/tmp/me is common: others may add to /tmp, but not replace what is there."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(shared / "me"))
    assert build.libraries("cpu") == [] and [build.build("cpu")] == build.libraries("cpu")
    assert build.libraries("cpu")[0].is_relative_to(shared)


def test_a_cluster_where_the_group_may_write_above_is_fine(home):
    """/scratch/lab is often 2775; whoever replaced the folder below it would own what they put there."""
    path = build.build("cpu")
    home.chmod(0o2775)
    assert build.libraries("cpu") == [path]


def test_without_a_usable_home_each_process_has_its_own_folder(home, monkeypatch):
    """The place must not be one that another user can foresee and fill beforehand."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(tempfile, "tempdir", str(home / "tmp"))
    (home / "tmp").mkdir()
    for name in (f"pading-msda-{os.getuid()}", "pading-msda", "pading-msda-user"):
        _plant(home / "tmp" / name)
    build._private_folder.cache_clear()
    try:
        assert build.libraries("cpu") == []
        path = build.build("cpu")
        assert path.read_text() == "compiled here"
        assert path.parent.stat().st_mode & 0o777 == 0o700 and path.parent.parent == home / "tmp"
    finally:
        build._private_folder.cache_clear()


def test_no_home_and_no_name_is_survived(home, monkeypatch):
    """As in a container that runs under a number: ``load`` promises never to raise."""
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(build.Unavailable, match="no home"):
        build.cache_folder()
    assert build.libraries("cpu") == []
    monkeypatch.setattr(backends, "_loaded", set())
    assert "compile" in backends.load("cpu", compile_if_missing=False)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
def test_as_an_unknown_user_without_a_home(tmp_path):
    """The real thing: another user id, no HOME, and a library planted where versions before this one looked."""
    planted = Path(tempfile.gettempdir()) / f"pading-msda-{STRANGER}"
    if planted.exists():
        pytest.skip(f"{planted} exists")
    code = f"""
import os, torch
from PADing.modeling.pixel_decoder.ops import available_backends, backends
os.setgroups([]), os.setgid({STRANGER}), os.setuid({STRANGER})
os.environ.pop("HOME", None)
print(backends.load("cpu"))
print(available_backends()["pytorch"])
"""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "CXX": "no-such-compiler"}
    try:
        os.chown(_plant(planted), STRANGER, STRANGER)
        result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    finally:
        shutil.rmtree(planted, ignore_errors=True)
    assert result.returncode == 0, result.stderr
    reason, pytorch = result.stdout.splitlines()
    # "None": built ahead of time; or this user may not even read the sources.
    assert any(words in reason for words in ("no-such-compiler", "None", "Permission denied")), reason
    assert pytorch == "ready" and str(planted) not in reason
