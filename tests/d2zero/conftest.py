"""D2Zero in small: the mini data set's classes, random class embeddings, and the sizes of its config or less."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

import PADing  # noqa: F401  registers the mini data sets
from PADing.config import load_config
from PADing.data.embeddings import save_class_embeddings

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = REPOSITORY / "configs" / "mini" / "d2zero.yaml"
GENERALIZED, UNSEEN_ONLY = "mini_val_instance", "mini_val_instance_unseen_only"
ZSIS = ["DATASETS.TEST", (UNSEEN_ONLY,), "MODEL.MASK_FORMER.TEST.GENERALIZED", False]
SMALL = ["MODEL.MASK_FORMER.DEC_LAYERS", 3, "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 1]
SMALL += ["MODEL.MASK_FORMER.TRAIN_NUM_POINTS", 32, "MODEL.D2ZERO.SEMANTIC_DIM", 32, "MODEL.DEVICE", "cpu"]


@pytest.fixture(scope="session")
def vocabulary() -> list[str]:
    return MetadataCatalog.get(GENERALIZED).vocabulary


@pytest.fixture(scope="session")
def vectors(tmp_path_factory, vocabulary) -> Path:
    """Embeddings of all classes, in an order that is nobody's."""
    names = sorted(vocabulary)
    file = tmp_path_factory.mktemp("texts") / "vectors.npz"
    save_class_embeddings(file, names, np.random.RandomState(0).randn(len(names), 12).astype(np.float32), "test")
    return file


@pytest.fixture(scope="session")
def word_vectors(tmp_path_factory, vocabulary) -> Path:
    """The older file layout: no names, the background in column 0."""
    file = tmp_path_factory.mktemp("texts") / "words.txt"
    np.savetxt(file, np.random.RandomState(1).randn(12, 1 + len(vocabulary)), delimiter=",")
    return file


@pytest.fixture(scope="session")
def config(vectors):
    def make(*opts):
        return load_config(CONFIG, ["MODEL.CLASS_EMBEDDINGS", str(vectors), *SMALL, *opts])

    return make


@pytest.fixture(scope="session")
def model(config):
    """``model(*overrides)``: always with the same random weights."""

    def make(*opts):
        torch.manual_seed(0)
        return build_model(config(*opts)).eval()

    return make


@pytest.fixture(scope="session")
def images() -> list[dict]:
    generator = torch.Generator().manual_seed(3)
    return [{"image": 255 * torch.rand(3, 64, 96, generator=generator), "height": 80, "width": 120} for _ in range(2)]
