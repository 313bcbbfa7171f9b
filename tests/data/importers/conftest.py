import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from tests.small_models import load_tool


@pytest.fixture(scope="session")
def tool():
    return load_tool("tools/import_data.py")


@pytest.fixture(scope="session")
def go_on():
    """Runs the commands that the import printed, in this process; status of the last."""
    from PADing.data import verify

    paths = ("tools/make_split.py", "datasets/prepare_coco_stuff_sem_seg.py")
    mains = {path: load_tool(path).main for path in paths} | {"-m": lambda words: verify.main(words[1:])}

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
