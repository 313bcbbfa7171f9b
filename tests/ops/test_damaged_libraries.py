"""A library that is torn, empty or cannot be opened is named and compiled again; a good one is never compiled twice."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from PADing.modeling.pixel_decoder.ops import backends, build

CODE = """
import logging
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
from PADing.modeling.pixel_decoder.ops import __main__ as check, backends, build
from pathlib import Path
import shutil, sys
def copy(kind, target):
    print("compiling")
    work = target.with_suffix(".new")
    shutil.copyfile(sys.argv[1], work)
    work.chmod(0o755)
    build._place(work, target)
build._compile = copy
build.missing = lambda kind: None
build.HERE = Path("/no/library/built/ahead/of/time")
print("reason:", backends.load("cpu"))
print("error:", check._largest_error("cpu"))
"""


@pytest.fixture
def cached(compiled_cpu, tmp_path) -> Path:
    """A library and its checksum in a cache of its own."""
    built = build.libraries("cpu")[0]
    folder = tmp_path / build.CACHE
    folder.mkdir(mode=0o700)
    for path in (built, build._checksum(built)):
        shutil.copyfile(path, folder / path.name)
        (folder / path.name).chmod(0o755)
    return folder / built.name


def _load_in_a_new_process(cached: Path) -> str:
    """A torn library could kill the process that opens it."""
    good = build.libraries("cpu")[0]
    result = subprocess.run(
        [sys.executable, "-c", CODE, str(good)],
        env={"TORCH_EXTENSIONS_DIR": str(cached.parents[1]), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        cwd=Path(build.__file__).parents[4],
        capture_output=True,
        text=True,
        timeout=600,
    )
    text = result.stdout + result.stderr
    assert result.returncode == 0, text
    assert "reason: None" in text and float(text.split("error:")[1].split()[0]) < 1e-5
    return text


@pytest.mark.parametrize("damage, words", [("truncated", "is damaged"), ("empty", "is empty"), ("unsigned", "cannot")])
def test_a_damaged_library_is_named_and_compiled_again(cached, damage, words):
    if damage == "unsigned":
        build._checksum(cached).unlink()
    else:
        cached.write_bytes(cached.read_bytes()[: 200_000 if damage == "truncated" else 0])
    text = _load_in_a_new_process(cached)
    assert text.count("WARNING") == 1 and str(cached) in text and words in text and "compiling" in text
    assert build.damage(cached) is None


def test_a_library_that_cannot_be_opened_is_compiled_again(cached):
    """As one that was linked with a newer C library."""
    cached.write_bytes(b"no library")
    cached.rename(cached.with_suffix(".new"))
    build._place(cached.with_suffix(".new"), cached)
    assert build.damage(cached) is None
    text = _load_in_a_new_process(cached)
    assert "cannot be opened" in text and str(cached) in text and "compiling" in text
    assert build.damage(cached) is None


def test_what_others_wait_for_is_compiled_once(cached, monkeypatch, tmp_path):
    """The process that waited for the lock finds a good library and takes it."""
    monkeypatch.setattr(build, "_compile", lambda kind, target: pytest.fail("compiled a good library again"))
    monkeypatch.setattr(build, "missing", lambda kind: None)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    assert build.build("cpu") == cached


def test_a_damaged_library_without_a_compiler_is_the_reason(cached, monkeypatch, tmp_path):
    cached.write_bytes(b"")
    monkeypatch.setattr(build, "HERE", tmp_path)
    monkeypatch.setattr(build, "missing", lambda kind: "no C++ compiler")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr(backends, "_loaded", set())
    assert backends.load("cpu", compile_if_missing=False) == f"{cached} is empty"
    assert backends.load("cpu") == "no C++ compiler"


def test_a_reload_and_a_second_copy_share_the_operators(compiled_cpu):
    code = """
import gc, importlib, sys
from PADing.modeling.pixel_decoder.ops import backends, library
assert backends.load("cpu") is None
importlib.reload(library)
for name in [name for name in sys.modules if name.startswith("PADing.modeling.pixel_decoder.ops")]:
    del sys.modules[name]
del library, backends
gc.collect()
from PADing.modeling.pixel_decoder.ops import __main__ as check, backends, library
assert backends.load("cpu") is None and check._largest_error("cpu") < 1e-5
library.SCHEMAS["ms_deform_attn"] = "(Tensor value) -> Tensor"
try:
    library._registered("ms_deform_attn")
except ImportError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert "Two versions cannot be used in one process" in result.stdout
