"""A finished training of a small untrained model, the folder made of it, and a Hub on this machine."""

import json
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from PADing.config import load_config
from PADing.data.mini_files import make_mini_coco
from PADing.sharing.export import share_model
from tests.sharing.fake_hub import fake_hub
from tests.small_models import REPOSITORY, SMALL

METRICS = {"mini_val_instance": {"segm": {"AP": 1.25, "AP50": None, "AP-plain disc": 3.0}}}
CONFIGS = {"PADing": "panoptic-PADing.yaml", "MaskFormer": "panoptic-pretrain.yaml", "D2Zero": "d2zero.yaml"}


@pytest.fixture(scope="session")
def vectors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharing") / "mini"
    make_mini_coco(folder, train=3, val=2, size=64, seed=3)
    return folder / "class_vectors.npz"


@pytest.fixture(scope="session")
def trainings(vectors, tmp_path_factory):
    """``trainings(architecture)``: a folder such as a training leaves; one for each architecture."""
    made = {}

    def function(architecture: str):
        if architecture not in made:
            folder = tmp_path_factory.mktemp(architecture)
            values = {**SMALL, "MODEL.CLASS_EMBEDDINGS": vectors, "OUTPUT_DIR": folder}
            opts = [str(item) for pair in values.items() for item in pair]
            cfg = load_config(str(REPOSITORY / "configs" / "mini" / CONFIGS[architecture]), opts)
            torch.manual_seed(5)
            torch.save({"model": build_model(cfg).state_dict(), "iteration": 3}, folder / "model_final.pth")
            (folder / "config.yaml").write_text(cfg.dump())
            (folder / "results.json").write_text(json.dumps(METRICS))
            made[architecture] = folder
        return made[architecture]

    return function


@pytest.fixture(scope="session")
def shared_models(trainings, tmp_path_factory):
    """``shared_models(architecture)``: the shared folder of ``trainings(architecture)``; do not change it."""
    made = {}

    def function(architecture: str):
        if architecture not in made:
            folder = tmp_path_factory.mktemp("shared") / architecture
            made[architecture] = share_model(trainings(architecture), folder, license_name="mit")
        return made[architecture]

    return function


@pytest.fixture
def shared(shared_models, tmp_path):
    """A copy of the shared D2Zero, which needs its class embeddings."""
    return shutil.copytree(shared_models("D2Zero"), tmp_path / "model")


@pytest.fixture
def training(trainings, tmp_path):
    return shutil.copytree(trainings("D2Zero"), tmp_path / "training")


@pytest.fixture(scope="session")
def image():
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


@pytest.fixture
def hub(shared, tmp_path, monkeypatch):
    """The Hub serves ``shared``; the cache is empty."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="the optional extra hub")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between repetitions of a failed request
    with fake_hub(shared) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
        monkeypatch.setattr(constants, "DEFAULT_ETAG_TIMEOUT", 2)
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 2)
        yield SimpleNamespace(server=server, folder=shared, constants=constants)
