"""The toy CLIP's networks, built by open_clip, and its folder in open_clip's format."""

import json
from pathlib import Path
from typing import Any

import torch

from PADing.data.clip_models import CONFIG_FILE, MEAN, STD, open_clip_library

__all__ = ["IMAGE_SIZE", "WEIGHTS", "build", "model_config", "write_config", "write_folder"]

WEIGHTS = "open_clip_model.safetensors"
IMAGE_SIZE = 64


def model_config() -> dict[str, Any]:
    """``model_cfg`` of ``open_clip_config.json``: timm's smallest ResNet and a text transformer of two layers."""
    vision = {"image_size": IMAGE_SIZE, "timm_model_name": "test_resnet", "timm_pool": "", "timm_proj": "linear"}
    text = {"context_length": 20, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
    return {"embed_dim": 64, "vision_cfg": vision, "text_cfg": text}


def build(seed: int) -> Any:
    """An untrained toy CLIP; ``seed`` decides its weights."""
    library = open_clip_library()
    torch.manual_seed(seed)
    return library.CLIP(**model_config())


def write_config(folder: Path) -> None:
    """Write ``open_clip_config.json``."""
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    content = {"model_cfg": model_config(), "preprocess_cfg": preprocess}
    (folder / CONFIG_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_folder(folder: Path, model: Any) -> None:
    """Write the configuration and the weights, as ``open_clip.create_model_and_transforms("local-dir:...")`` reads."""
    from PADing.safetensors_files import write_safetensors

    write_config(folder)
    write_safetensors(folder / WEIGHTS, {name: value.contiguous() for name, value in model.state_dict().items()})
