"""A user's method is found without being installed: in the current folder, or beside the config that names it."""

import sys

import pytest

from PADing.config import load_config
from PADing.errors import UserError

METHOD = "def add_config(cfg):\n    cfg.MODEL.MY_KEY = 1.5\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("own_method")]:
        del sys.modules[name]


def test_in_the_current_folder(folder, monkeypatch):
    (folder / "own_method_a.py").write_text(METHOD)
    monkeypatch.chdir(folder)
    assert load_config("", ["PLUGINS", "own_method_a", "MODEL.MY_KEY", "2"]).MODEL.MY_KEY == 2.0


def test_beside_the_config(folder):
    (folder / "own_method_b").mkdir()
    (folder / "own_method_b" / "__init__.py").write_text("from own_method_b.keys import add_config\n")
    (folder / "own_method_b" / "keys.py").write_text(METHOD)
    (folder / "a.yaml").write_text('PLUGINS: ["own_method_b"]\nMODEL: {MY_KEY: 3}\n')
    assert load_config(folder / "a.yaml").MODEL.MY_KEY == 3.0


def test_beside_the_base_of_a_config(folder):
    """Someone else's method is used by a config of one's own, in another folder."""
    (folder / "theirs").mkdir()
    (folder / "mine").mkdir()
    (folder / "theirs" / "own_method_e.py").write_text(METHOD)
    (folder / "theirs" / "base.yaml").write_text("PLUGINS: own_method_e\n")
    (folder / "mine" / "a.yaml").write_text("_BASE_: ../theirs/base.yaml\nMODEL: {MY_KEY: 4}\n")
    assert load_config(folder / "mine" / "a.yaml").MODEL.MY_KEY == 4.0


def test_what_is_missing_is_named(folder):
    (folder / "own_method_c.py").write_text("import no_such_package\n")
    (folder / "a.yaml").write_text("PLUGINS: own_method_c\n")
    with pytest.raises(UserError, match="'own_method_c', which needs no_such_package"):
        load_config(folder / "a.yaml")
    with pytest.raises(UserError, match=f"'own_method_d', which is neither installed nor in .*{folder}"):
        load_config(folder / "a.yaml", ["PLUGINS", "own_method_d"])
    with pytest.raises(UserError, match="not the name of a module"):
        load_config("", ["PLUGINS", "../own_method_c"])
