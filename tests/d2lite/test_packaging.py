"""If these fail, d2lite shadows or overwrites a genuine Detectron2, or is not found at all."""

import importlib.abc
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import d2lite.provider as provider
from d2lite.omitted import explain_missing_modules, omitted_names

from .conftest import run_python

DISTRIBUTION = Path(__file__).resolve().parents[2] / "d2lite"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    if int(version("setuptools").split(".")[0]) < 70:
        pytest.skip("building a wheel without a network needs setuptools >= 70 in this environment")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(DISTRIBUTION, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    result = subprocess.run([*command, str(source)], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    (path,) = folder.glob("d2lite-*.whl")
    return path


def test_wheel_puts_only_its_own_names_at_the_top(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        line = archive.read("d2lite.pth").decode()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"d2lite", "d2lite.pth"}
    assert line == "d2lite/standin\n"
    source = DISTRIBUTION / "src"
    code = {str(p.relative_to(source)) for p in source.glob("d2lite/**/*.py")}
    assert code == {name for name in names if name.endswith(".py")}  # nothing is forgotten


def test_wheel_carries_data_files(wheel):
    source = DISTRIBUTION / "src"
    data = {
        str(p.relative_to(source)).replace("\\", "/")
        for p in source.glob("d2lite/**/*")
        if p.is_file() and p.suffix not in (".py", ".pyc") and "_cache" not in str(p)
    }
    with zipfile.ZipFile(wheel) as archive:
        assert data <= set(archive.namelist())


def test_an_unpacked_wheel_is_found_behind_the_other_packages(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    # -S: without the site-packages of this environment, so only the wheel is there.
    code = f"import site, sys; site.addsitedir({str(tmp_path)!r}); print(sys.path.index({str(tmp_path)!r}), sys.path)"
    result = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    code = (
        f"import site; site.addsitedir({str(tmp_path)!r}); import importlib.util as u;"
        "print(u.find_spec('detectron2').origin); import runpy; runpy.run_module('d2lite', run_name='__main__')"
    )
    result = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, timeout=60)
    location, *report = result.stdout.splitlines()
    assert Path(location) == tmp_path / "d2lite" / "standin" / "detectron2" / "__init__.py"
    assert report[0] == "detectron2: stand-in" and "panopticapi: stand-in" in report, result.stdout + result.stderr


def make_package(folder: Path, name: str, text: str = "") -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(text)
    return folder


def test_each_genuine_package_wins_by_itself(tmp_path):
    """A genuine detectron2 in front changes nothing for panopticapi."""
    make_package(tmp_path, "detectron2", "genuine = True\n")
    code = "import detectron2; print(detectron2.genuine); import runpy; runpy.run_module('d2lite', run_name='__main__')"
    result = run_python(code, PYTHONPATH=str(tmp_path))
    lines = result.stdout.splitlines()
    assert lines[0] == "True" and lines[1] == "detectron2: genuine"
    assert lines[2] == f"  from {tmp_path / 'detectron2'}"
    assert any(line.startswith("panopticapi:") for line in lines) and result.returncode == 0, result.stderr


# The rest works on a made-up name, so that it does not matter what is installed.

STANDIN_CODE = """
from d2lite.provider import step_aside
if not step_aside(__name__):
    __standin__ = True
"""


@pytest.fixture
def standin(tmp_path, monkeypatch):
    """A stand-in called ``made_up``, at the end of the path."""
    folder = make_package(tmp_path / "standin", "made_up", STANDIN_CODE)
    monkeypatch.setattr(provider, "STANDIN_FOLDER", folder.resolve())
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield folder
    for name in [n for n in sys.modules if n.split(".")[0] == "made_up"]:
        del sys.modules[name]
    importlib.invalidate_caches()


def test_alone_the_standin_is_used(standin):
    import made_up

    assert made_up.__standin__
    report = provider.describe("made_up")
    assert report["provider"] == "stand-in" and report["location"] == str(standin / "made_up")


def test_a_genuine_package_behind_the_standin_still_wins(standin, tmp_path):
    """Old editable installs come by a .pth file that is sorted after d2lite's."""
    genuine = make_package(tmp_path / "genuine", "made_up", "from made_up.sub import value\n")
    (genuine / "made_up" / "sub.py").write_text("value = 7\n")
    sys.path.append(str(genuine))
    import made_up

    assert made_up.value == 7 and not hasattr(made_up, "__standin__")
    report = provider.describe("made_up")
    assert report["provider"] == "genuine" and "after the stand-in" in report["why"]


class Hook(importlib.abc.MetaPathFinder):
    """What setuptools installs for an editable package whose folders cannot be put on the path."""

    def __init__(self, name: str, location: Path):
        self.name, self.location = name, location

    def find_spec(self, fullname, path=None, target=None):
        if fullname == self.name:
            return importlib.util.spec_from_file_location(
                fullname, self.location / "__init__.py", submodule_search_locations=[str(self.location)]
            )
        return None


def test_a_genuine_package_behind_an_import_hook_is_noticed_and_wins(standin, tmp_path):
    genuine = make_package(tmp_path / "checkout", "made_up", "value = 8\n")
    sys.meta_path.append(Hook("made_up", genuine / "made_up"))
    report = provider.describe("made_up")
    assert report["provider"] == "genuine" and "import hook" in report["why"]
    assert report["location"] == str(genuine / "made_up")
    import made_up

    assert made_up.value == 8


def test_a_genuine_package_that_fails_to_import_is_not_hidden(standin, tmp_path):
    genuine = make_package(tmp_path / "genuine", "made_up", "raise RuntimeError('not compiled')\n")
    sys.path.append(str(genuine))
    with pytest.raises(RuntimeError, match="not compiled"):
        importlib.import_module("made_up")


def test_a_folder_that_only_has_the_name_does_not_count(standin, tmp_path):
    """A Git checkout called detectron2 in the current directory is not the package."""
    (tmp_path / "here" / "made_up").mkdir(parents=True)
    sys.path.insert(0, str(tmp_path / "here"))
    assert provider.find_genuine("made_up") is None
    import made_up

    assert made_up.__standin__


def test_what_is_left_out_is_said(standin):
    getter = omitted_names("made_up.config", "EagerThing LazyThing")
    with pytest.raises(ImportError, match=r"made_up\.config\.LazyThing is not available: d2lite.*leaves it out"):
        getter("LazyThing")
    with pytest.raises(AttributeError, match=r"made_up\.config\.other is not available: d2lite.*leaves it out"):
        getter("other")
    explain_missing_modules("made_up")
    with pytest.raises(ModuleNotFoundError, match=r"made_up\.export.*leaves it out"):
        importlib.import_module("made_up.export")


def test_the_standin_says_what_it_leaves_out(run_standin):
    code = """
for line in ("from detectron2.config import LazyConfig", "from detectron2 import model_zoo",
             "import detectron2.export", "from detectron2.engine import TorchProfiler",
             "from detectron2.engine.hooks import TorchProfiler",
             "from detectron2.data import transforms as T; T.Tilt"):
    try:
        exec(line)
    except (ImportError, AttributeError) as error:
        print(error)
import detectron2, detectron2.data
assert not hasattr(detectron2.data, "anything")
print(detectron2.__standin__, detectron2.__version__)
"""
    lines = run_standin(code).splitlines()
    names = ("config.LazyConfig", "model_zoo", "export", "engine.TorchProfiler", "engine.hooks.TorchProfiler")
    names += ("data.transforms.Tilt",)
    assert len(lines) == 7 and lines[-1] == "True 0.6"
    for name, line in zip(names, lines, strict=False):
        assert f"detectron2.{name}" in line and "d2lite" in line and "genuine Detectron2" in line


def test_importing_needs_no_optional_package(run_standin):
    """A machine without torchvision, tensorboard and cloudpickle can still import everything that training needs."""
    code = """
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torchvision", "omegaconf", "cloudpickle", "tensorboard", "timm", "matplotlib"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Block())
import detectron2.engine, detectron2.checkpoint, detectron2.projects.deeplab, detectron2.utils.events
print("ok")
"""
    assert run_standin(code).strip() == "ok"
