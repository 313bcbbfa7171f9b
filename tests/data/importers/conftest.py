import importlib.util
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

REPOSITORY = Path(__file__).resolve().parents[3]


def script(path: str):
    spec = importlib.util.spec_from_file_location(Path(path).stem, REPOSITORY / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tool():
    return script("tools/import_data.py")


@pytest.fixture(scope="session")
def go_on():
    """Runs the commands that the import printed, in this process; status of the last."""
    from PADing.data import verify

    mains = {path: script(path).main for path in ("tools/make_split.py", "datasets/prepare_coco_stuff_sem_seg.py")} | {
        "-m": lambda words: verify.main(words[1:])
    }

    def run(commands: list[list[str]]) -> None:
        for python, path, *words in commands:
            assert python == "python" and mains[path](words) == 0, (path, words)

    return run


@pytest.fixture(autouse=True)
def no_data_sets_are_left():
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
