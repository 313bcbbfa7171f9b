"""Two small CLIP models with random weights in open_clip's format, their text embeddings, and configs."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from PADing.data.clip_models import CONFIG_FILE, clip_source, open_clip_library
from PADing.data.embedding_sources import clip_embeddings
from PADing.data.embeddings import save_class_embeddings
from tests.small_models import REPOSITORY, SMALL

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
TOWERS = {
    "convnext": {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "mlp", "image_size": 128},
    "resnet": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 64, "image_size": 64},
}
PIXELS = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
TEMPLATES = ("a photo of a {}.",)


def make_clip(folder: Path, kind: str, seed: int = 0) -> Path:
    """A random CLIP model in a folder."""
    folder.mkdir(parents=True)
    config = {"embed_dim": 24, "vision_cfg": TOWERS[kind], "text_cfg": TEXT}
    (folder / CONFIG_FILE).write_text(json.dumps({"model_cfg": config, "preprocess_cfg": PIXELS}))
    torch.manual_seed(seed)
    model = open_clip_library().create_model(f"local-dir:{folder}", load_weights=False)
    for name, p in model.visual.named_parameters():
        if name.endswith("bn3.weight"):  # zeros in open_clip: the blocks would be the identity
            torch.nn.init.constant_(p, 0.5)
    for name, b in model.visual.named_buffers():
        if "running_mean" in name:
            torch.nn.init.normal_(b, std=0.1)
    with torch.no_grad():
        model.logit_scale.fill_(3.0)
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """``clips.convnext``, ``clips.resnet``: folders of CLIP models."""
    root = tmp_path_factory.mktemp("clips")
    return SimpleNamespace(**{kind: make_clip(root / kind, kind) for kind in TOWERS})


@pytest.fixture(scope="session")
def text(clips, drawn, tmp_path_factory):
    """Files of text embeddings of the drawn classes by these CLIP models: ``text.convnext``, ``text.resnet``."""
    folder, files = tmp_path_factory.mktemp("text"), {}
    for kind in TOWERS:
        model = str(getattr(clips, kind))
        vectors = clip_embeddings(drawn.classes, model, templates=TEMPLATES).numpy()
        files[kind] = folder / f"{kind}.npz"
        source = clip_source(model, "", None, "fp32")
        save_class_embeddings(files[kind], drawn.classes, vectors, source, TEMPLATES)
    return SimpleNamespace(**files)


@pytest.fixture(scope="session")
def options(clips, text, drawn):
    """``options(kind, task, **keys) -> (config, opts)`` of a small FrozenCLIP; ``kind``: convnext, resnet."""

    def function(kind: str = "convnext", task: str = "panoptic", **keys) -> tuple[str, list]:
        values = {
            **SMALL,
            "MODEL.FROZENCLIP.NAME": str(getattr(clips, kind)),
            "MODEL.FROZENCLIP.CLASS_EMBEDDINGS": str(getattr(text, kind)),
            "DATASETS.TRAIN": (f"tools_mini_train_{task}",),
            "DATASETS.TEST": (f"tools_mini_val_{task}",),
            "MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD": 0.0,
            "MODEL.MASK_FORMER.TEST.OVERLAP_THRESHOLD": 0.0,
            "MODEL.MASK_FORMER.TEST.SEMANTIC_ON": task != "instance",
            "MODEL.MASK_FORMER.TEST.PANOPTIC_ON": task == "panoptic",
            "MODEL.MASK_FORMER.TEST.INSTANCE_ON": task != "semantic",
            **{key.replace("__", "."): value for key, value in keys.items()},
        }
        config = str(REPOSITORY / "configs" / "mini" / "frozenclip.yaml")
        return config, [str(item) if not isinstance(item, str) else item for pair in values.items() for item in pair]

    return function
