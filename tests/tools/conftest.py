"""A drawn data set of a few images, and untrained models with weights of their own, for the tools."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model

import PADing.meta_arch  # noqa: F401  registers the meta-architectures
from PADing.config import load_config
from PADing.data.mini_files import make_mini_coco
from PADing.data.registration import register_split
from PADing.data.splits import split_from_dict

REPOSITORY = Path(__file__).resolve().parents[2]
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
    folder = tmp_path_factory.mktemp("tools") / "mini"
    make_mini_coco(folder, train=3, val=2, size=64, seed=3)
    content = yaml.safe_load((REPOSITORY / "datasets" / "splits" / "mini.yaml").read_text())
    content["name"] = "tools_mini"
    for entry in content["data_sets"]:
        entry["name"] = f"tools_{entry['name']}"
    split = split_from_dict(content, str(folder / "split.yaml"))
    register_split(split, root=str(folder.parent))
    names = [entry["name"] for entry in content["data_sets"]]
    yield SimpleNamespace(
        images=sorted((folder / "val").glob("*.jpg")),
        vectors=folder / "class_vectors.npz",
        classes=[c.name for c in split.categories],
        unseen=list(split.unseen),
        names=names,
    )
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


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
