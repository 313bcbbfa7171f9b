"""Fixtures for all tests: a drawn data set of a few images, and untrained models with weights of their own."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]
SMALL = {
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
    "MODEL.SEM_SEG_HEAD.MASK_DIM": 32,
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 1,
    "MODEL.MASK_FORMER.HIDDEN_DIM": 32,
    "MODEL.MASK_FORMER.DIM_FEEDFORWARD": 32,
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 4,
    "MODEL.MASK_FORMER.DEC_LAYERS": 2,
    "INPUT.IMAGE_SIZE": 64,
    "INPUT.MIN_SIZE_TEST": 64,
    "INPUT.MAX_SIZE_TEST": 96,
}
CONFIGS = {
    "MaskFormer": ("panoptic-pretrain.yaml", "panoptic"),
    "PADing": ("panoptic-PADing.yaml", "panoptic"),
    "D2Zero": ("d2zero.yaml", "instance"),
}


def load_tool(path: str):
    """A script of the repository as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, REPOSITORY / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tool():
    return load_tool


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """Two training and two validation images of 64 x 64: ``images``, ``names`` (of data sets), ``vectors`` (file)."""
    from tests.drawn_mini import drawn_mini  # late, because every test run reads this module

    folder = tmp_path_factory.mktemp("tools") / "mini"
    with drawn_mini(folder, "tools_", train=3, val=2) as split:
        yield SimpleNamespace(
            images=sorted((folder / "val").glob("*.jpg")),
            vectors=folder / "class_vectors.npz",
            classes=[c.name for c in split.categories],
            unseen=list(split.unseen),
            names=[data_set.name for data_set in split.data_sets],
        )


@pytest.fixture(scope="session")
def model_options(drawn, tmp_path_factory):
    """``model_options(architecture) -> ["--config-file", file], opts``: a small model and where its weights lie.

    The weights are random, but the classifiers of MaskFormer and PADing prefer the first unseen thing to all else.
    """
    folder, made = tmp_path_factory.mktemp("weights"), {}

    def function(architecture: str) -> tuple[list[str], list[str]]:
        if architecture not in made:
            made[architecture] = _make(architecture, drawn, folder)
        return made[architecture]

    return function


def _make(architecture: str, drawn, folder: Path) -> tuple[list[str], list[str]]:
    from detectron2.modeling import build_model

    import PADing.meta_arch  # noqa: F401  registers the meta-architectures
    from PADing.config import load_config

    file, kind = CONFIGS[architecture]
    config = str(REPOSITORY / "configs" / "mini" / file)
    values = {
        **SMALL,
        "MODEL.CLASS_EMBEDDINGS": drawn.vectors,
        "DATASETS.TRAIN": (f"tools_mini_train_{kind}",),
        "DATASETS.TEST": (f"tools_mini_val_{kind}",),
        "MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD": 0.0,
        "MODEL.MASK_FORMER.TEST.OVERLAP_THRESHOLD": 0.0,
    }
    opts = [str(item) for pair in values.items() for item in pair]
    torch.manual_seed(5)
    model = build_model(load_config(config, opts))
    classifier = {"MaskFormer": "sem_seg_head.predictor.class_embed", "PADing": "new_fc"}.get(architecture)
    if classifier:
        favourite = drawn.classes.index(drawn.unseen[0])
        torch.nn.init.constant_(model.get_submodule(classifier).bias[favourite : favourite + 1].detach(), 20.0)
    weights = folder / f"{architecture}.pth"
    torch.save({"model": model.state_dict()}, weights)
    return ["--config-file", config], [*opts, "MODEL.WEIGHTS", str(weights)]
