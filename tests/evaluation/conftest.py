"""Small data sets for the evaluators."""

import itertools
import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

_COUNTER = itertools.count()


@pytest.fixture
def register():
    """``register(records, **metadata) -> name``: a data set that exists for one test."""
    names = []

    def function(records=None, **metadata) -> str:
        name = f"evaluation_test_{next(_COUNTER)}"
        names.append(name)
        DatasetCatalog.register(name, lambda: list(records or []))
        MetadataCatalog.get(name).set(**metadata)
        return name

    yield function
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def save_ids():
    """``save_ids(path, ids)``: write (H, W) segment ids as a PNG with id = R + 256 G + 65536 B."""

    def function(path, ids) -> None:
        ids = np.asarray(ids)
        path.parent.mkdir(parents=True, exist_ok=True)
        channels = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1)
        Image.fromarray(channels.astype(np.uint8)).save(path)

    return function


@pytest.fixture
def save_json():
    """``save_json(path, content) -> str(path)``."""

    def function(path, content) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        return str(path)

    return function
