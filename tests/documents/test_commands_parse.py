"""Every command of the pages and of the docstrings is one that its own parser, config and registries accept.

Nothing is to be listed for a new command: it is found on its page. A failure names the place and the cure.
"""

import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

import PADing  # noqa: F401  registers the shipped data sets
from PADing.data.mini_files import make_mini_coco
from PADing.errors import UserError
from tests.documents.checks import check_names, check_paths, config_of, made_by, made_by_configs
from tests.documents.pages import MODULES, PAGES, REPOSITORY, commands_of, name_of
from tests.documents.parsing import Rejected, parse
from tests.documents.working_copy import make_working_copy

SOURCES = [path for path in (*PAGES, *MODULES) if commands_of(path)]
# Their split files are those that other pages speak of.
ON_OWN_DATA = ("datasets/README.md", "docs/your_data.md")

pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")


@contextmanager
def unchanged_catalogs():
    """Take away the data sets that were registered meanwhile."""
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture(autouse=True)
def _unchanged_catalogs():
    with unchanged_catalogs():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A working copy with the split files of the pages on own data, and the paths that all pages' commands write."""
    folder = make_working_copy(tmp_path_factory.mktemp("pages"))
    make_mini_coco(folder / "datasets" / "mini", train=3, val=2, size=64)
    with pytest.MonkeyPatch.context() as monkeypatch, unchanged_catalogs():
        monkeypatch.chdir(folder)
        made = set(made_by_configs())
        for path in sorted(SOURCES, key=lambda path: name_of(path) in ON_OWN_DATA):
            for command in commands_of(path):
                with suppress(Rejected, UserError):  # the test of its page says so
                    for parsed in parse(command):
                        check_names(parsed)
                        made.update(made_by(parsed))
    return folder, made


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_commands_parse(path, base, tmp_path, monkeypatch):
    folder, made = base
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "copy", symlinks=True))
    wrong = []
    for command in commands_of(path):
        try:
            for parsed in parse(command):
                check_names(parsed)
                check_paths(parsed, config_of(parsed), made)
        except Rejected as error:
            wrong.append(f"{command.place}: {command.text}\n    {error}")
    assert not wrong, "\n\n" + "\n".join(wrong)


def test_a_wrong_command_is_rejected(base, tmp_path, monkeypatch):
    """The test of the test: each kind of mistake is found."""
    folder, made = base
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "copy", symlinks=True))
    train = "python train_net.py --config-file configs/mini/panoptic-PADing.yaml --num-gpus 0"
    mistakes = {
        f"{train} --evaluate": "OUTPUT_DIR|unrecognized|override|KEY",
        f"{train} MODEL.WIEGHTS x.pth": "MODEL.WIEGHTS",
        f"{train} DATASETS.TEST mini_val_panoptik": "mini_val_panoptik",
        f"{train} MODEL.WEIGHTS output/mini_panoptic_PADing/model_last.pth": "neither in the repository",
        "python train_net.py --config-file configs/mini/padding.yaml": "padding.yaml",
        "python tools/no_such.py": "there is no script",
        "python tools/make_split.py --nmae x": "own parser says",
        "python -m minibench run --methods padign": "there is no method 'padign'",
        "python tools/visualize_json_results.py --input r.json --dataset coco_zsi --output o": "no data set 'coco_zsi'",
        "make quikstart": "quikstart",
        "frobnicate --all": "not a command that the tests know",
    }
    page = tmp_path / "page.md"
    monkeypatch.setattr("tests.documents.pages.REPOSITORY", tmp_path)
    for text, message in mistakes.items():
        page.write_text(f"# Page\n\n```sh\n{text}\n```\n")
        (command,) = commands_of(page)
        assert command.place == "page.md:4"
        with pytest.raises(Rejected, match=message):
            for parsed in parse(command):
                check_names(parsed)
                check_paths(parsed, config_of(parsed), made)


def test_every_page_is_looked_at():
    assert REPOSITORY / "docs" / "index.md" in PAGES and Path(REPOSITORY / "README.md") in PAGES and len(PAGES) > 20
