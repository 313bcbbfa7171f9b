"""If these fail, what ``pip install`` brings is not the whole project, or works in a checkout only."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import pading_cli
from minibench.methods import discover

REPOSITORY = Path(__file__).resolve().parents[1]
OURS = ("PADing/", "d2zero/", "frozenclip/", "baselines/", "minibench/")
TOPS = {"PADing", "d2zero", "frozenclip", "baselines", "minibench", "d2lite", "d2lite.pth", "pading_cli.py"}


def _tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("this is no Git checkout, so what belongs to the project is not known")
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in _tracked():
        if (REPOSITORY / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (file,) = folder.glob("pading-*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def _run(wheel: Path, folder: Path, *words: str) -> str:
    """What Python says in ``folder``, with the unpacked wheel in place of the checkout."""
    path = os.pathsep.join([str(wheel), str(wheel / "d2lite" / "standin")])
    environment = {k: v for k, v in os.environ.items() if k != "DETECTRON2_DATASETS"} | {"PYTHONPATH": path}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_holds_every_file_that_users_need(wheel):
    held = {path.relative_to(wheel).as_posix() for path in wheel.rglob("*") if path.is_file()}
    assert {name.split("/")[0] for name in held if ".dist-info" not in name} == TOPS
    code = [name for name in _tracked() if name.startswith(OURS)]
    assert not [name for name in code if name not in held]
    standins = [name for name in _tracked() if name.startswith("d2lite/src/") and "egg-info" not in name]
    assert standins and not [name for name in standins if name.removeprefix("d2lite/src/") not in held]
    beside = re.compile(
        r"(train_net\w*\.py|(configs|tools|demo|examples|models|embeddings|datasets/splits)/.*|datasets/\w+\.py)$"
    )
    shipped = [name for name in _tracked() if beside.match(name)]
    assert len(shipped) > 40 and not [name for name in shipped if f"PADing/shipped/{name}" not in held]


def test_it_works_in_an_empty_folder(wheel, tmp_path):
    code = """
import PADing, pading_cli
from PADing.config import load_config
from PADing.data.splits import shipped_split_files
from minibench.methods import discover
assert "shipped" in PADing.files.REPOSITORY.parts, PADing.files.REPOSITORY
cfg = load_config("configs/panoptic-segmentation/PADing.yaml")
(own := open("own.yaml", "w")).write("_BASE_: configs/d2zero_48_17.yaml\\n") and own.close()
print(cfg.MODEL.META_ARCHITECTURE, load_config("own.yaml").MODEL.META_ARCHITECTURE, len(shipped_split_files()))
print(*discover())
"""
    first, methods = _run(wheel, tmp_path, "-c", code).splitlines()
    assert first == "PADing D2Zero 8"
    assert methods.split() == list(discover())
    _run(wheel, tmp_path, "-m", "pading_cli", "data", "mini", "--train", "2", "--val", "1")
    assert (tmp_path / "datasets" / "mini" / "mini.json").is_file()
    assert not [path for path in wheel.rglob("mini.json")]
    assert "of unseen classes" in _run(wheel, tmp_path, "-m", "pading_cli", "demo", "--number", "1")
    assert (tmp_path / "output" / "demo" / "overview.png").is_file()


@pytest.mark.parametrize("name", pading_cli.COMMANDS)
def test_commands_lead_somewhere(name):
    target = pading_cli.COMMANDS[name][0]
    module = target.removeprefix("-m ").replace(".", "/")
    places = [f"{module}.py", f"{module}/__main__.py"] if target.startswith("-m ") else [target]
    assert any((REPOSITORY / place).is_file() for place in places)


def test_help_comes_without_pytorch():
    code = "import sys; sys.modules['torch'] = None; import pading_cli; sys.exit(pading_cli.main(['--help']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and all(f"  {name} " in done.stdout for name in pading_cli.COMMANDS), done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "Did you mean 'train'?"),
        (["dta", "verify"], "Did you mean 'data'?"),
        (["data", "verfy"], "Did you mean 'data verify'?"),
        (["--version", "x"], ""),
    ],
)
def test_a_typo_is_one_line(words, said, capsys):
    assert pading_cli.main(words) == (2 if said else 0)
    error = capsys.readouterr().err
    assert said in error and error.count("\n") <= 1


def test_a_command_gets_the_rest_of_the_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["pading"])
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    assert pading_cli.main(["data", "split", "--name", "x"]) == 2
    assert "usage: pading data split" in capsys.readouterr().err
