"""Every data set has the published classes, ids, order and paths; else scores go to the wrong classes."""

import json

import pytest
from detectron2.data import MetadataCatalog

from PADing.data.registration import register_split
from PADing.data.splits import load_split, shipped_split_files
from tests.golden.util import GOLDEN

FILE = GOLDEN / "datasets_metadata.json"
DATA_SETS = json.loads(FILE.read_text())["datasets"] if FILE.is_file() else {}
NOT_METADATA = ("files",)


@pytest.fixture(scope="module", autouse=True)
def default_root():
    """The golden paths are those of an unset DETECTRON2_DATASETS."""
    splits = [load_split(path) for path in shipped_split_files()]
    for split in splits:
        register_split(split, root="datasets")
    yield
    for split in splits:
        register_split(split)


@pytest.mark.skipif(not DATA_SETS, reason=f"{FILE} is absent")
@pytest.mark.parametrize("name", sorted(DATA_SETS))
def test_metadata(name):
    golden, metadata = DATA_SETS[name], MetadataCatalog.get(name)
    for key, value in golden.items():
        if key not in NOT_METADATA:
            # JSON turns integer keys into text; null stands for an attribute that is not there.
            assert json.loads(json.dumps(metadata.get(key))) == value, key


@pytest.mark.skipif(not DATA_SETS, reason=f"{FILE} is absent")
@pytest.mark.parametrize("name", sorted(DATA_SETS))
def test_paths(name):
    """Each file that the published data set reads is read here, and no other."""
    metadata = MetadataCatalog.get(name)
    keys = ("image_root", "json_file", "panoptic_root", "panoptic_json", "sem_seg_root")
    assert sorted(p for p in (metadata.get(key) for key in keys) if p) == sorted(DATA_SETS[name]["files"])
