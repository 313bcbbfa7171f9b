"""If these fail, the shipped data sets are missing in Detectron2's catalogs, or importing them ends in a circle."""

import importlib
import subprocess
import sys

import pytest

import d2lite.provider as provider
from PADing.after_import import import_after
from PADing.files import REPOSITORY
from tests.d2lite.test_packaging import STANDIN_CODE, Hook, make_package

# What people import first. The parent imports PyTorch once; each order runs in a fork.
ORDERS = [
    "import PADing",
    "import detectron2.data; import PADing",
    "import PADing; import detectron2.data.datasets",
    "import PADing.class_space",
    "import PADing.data.splits",
    "import PADing.data.registration",
    "import PADing.data.loaders",
    "import PADing.data.images; import detectron2.engine",
    "import PADing.data.embeddings",
    "import PADing.data.dataset_mappers",
    "import PADing.evaluation",
    "import PADing.engine.trainer",
    "import PADing.inference",
    "import d2zero",
    "from PADing.config import load_config; load_config('')",
    "import detectron2.engine; import PADing.plugins",
]
RUN = """
import os, sys, torch
for order in sys.argv[1:]:
    if os.fork() == 0:
        status = 1
        try:
            exec(order)
            from detectron2.data import DatasetCatalog, MetadataCatalog
            assert "mini_val_panoptic" in DatasetCatalog.list(), "not registered"
            assert MetadataCatalog.get("mini_val_panoptic").stuff_classes
            import detectron2.data
            assert type(detectron2.data.__spec__.loader).__module__ != "PADing.after_import"
            status = 0
        except BaseException as error:
            print(f"{order}: {type(error).__name__}: {error}", flush=True)
        finally:
            os._exit(status)
    os.wait()
print("done")
"""


def test_the_shipped_data_sets_are_registered_in_every_order_of_imports():
    done = subprocess.run(
        [sys.executable, "-c", RUN, *ORDERS], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.split("\n")[:-1] == ["done"], done.stdout + done.stderr


# The rest works on a made-up package, so that it does not matter what is installed.


@pytest.fixture
def followed(tmp_path, monkeypatch):
    """``made_up_follower`` is a module that counts its imports in ``sys.made_up_count``."""
    (tmp_path / "made_up_follower.py").write_text(
        "import sys\nfrom made_up.data import value\nsys.made_up_count += 1\n"
    )
    monkeypatch.setattr(sys, "made_up_count", 0, raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("made_up")]:
        del sys.modules[name]
    importlib.invalidate_caches()


def make_genuine(folder, value: int):
    make_package(folder, "made_up")
    (folder / "made_up" / "data.py").write_text(f"value = {value}\n")
    return folder


@pytest.mark.parametrize("kind", ["in front", "behind", "hook", "standin"])
def test_it_follows_whichever_package_provides_the_name(kind, followed, tmp_path, monkeypatch):
    """d2lite's stand-in steps aside for a genuine package while it is imported."""
    standin = make_package(tmp_path / "standin", "made_up", STANDIN_CODE)
    (standin / "made_up" / "data.py").write_text("value = 1\n")
    monkeypatch.setattr(provider, "STANDIN_FOLDER", standin.resolve())
    sys.path.append(str(standin))
    if kind != "standin":
        genuine = make_genuine(tmp_path / "genuine", 2)
        if kind == "hook":
            sys.meta_path.append(Hook("made_up", genuine / "made_up"))
        else:
            sys.path.insert(0 if kind == "in front" else len(sys.path), str(genuine))
    finders = list(sys.meta_path)
    import_after("made_up.data", "made_up_follower")
    assert sys.made_up_count == 0 and importlib.util.find_spec("made_up.data").loader.get_source("made_up.data")
    module = importlib.import_module("made_up.data")
    assert module.value == sys.modules["made_up_follower"].value == (1 if kind == "standin" else 2)
    assert sys.made_up_count == 1 and sys.meta_path == finders
    assert type(module.__loader__) is type(module.__spec__.loader) is type(sys.modules["made_up"].__loader__)


def test_an_imported_module_is_followed_at_once(followed, tmp_path):
    sys.path.append(str(make_genuine(tmp_path / "genuine", 3)))
    importlib.import_module("made_up.data")
    finders = list(sys.meta_path)
    import_after("made_up.data", "made_up_follower")
    assert sys.made_up_count == 1 and sys.meta_path == finders


def test_the_follower_may_be_first(followed, tmp_path):
    sys.path.append(str(make_genuine(tmp_path / "genuine", 3)))
    import_after("made_up.data", "made_up_follower")
    assert importlib.import_module("made_up_follower").value == 3 and sys.made_up_count == 1


def test_a_failure_is_raised_and_tried_again(followed, tmp_path):
    """As with a split file that somebody mends in a notebook."""
    sys.path.append(str(make_genuine(tmp_path / "genuine", 3)))
    file = followed / "made_up_follower.py"
    good = file.read_text()
    file.write_text("raise RuntimeError('broken')\n")
    import_after("made_up.data", "made_up_follower")
    with pytest.raises(RuntimeError, match="broken"):
        importlib.import_module("made_up.data")
    file.write_text(good)
    importlib.invalidate_caches()
    assert importlib.import_module("made_up.data").value == 3 and sys.made_up_count == 1
