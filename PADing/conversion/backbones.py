"""ResNets of torchvision and timm, and Swin's releases, as backbones of this project."""

import math
import re
from collections.abc import Mapping

from torch import Tensor

from PADing.conversion.renaming import same, to_ours
from PADing.errors import UserError

_STAGES = {f"layer{stage}": f"backbone.res{stage + 1}" for stage in (1, 2, 3, 4)}
RESNET = [
    same("backbone.stem.conv1.weight", "conv1.weight"),
    same("backbone.stem.conv1.norm.{s}", "bn1.{s}"),
    *(same(f"{ours}.{{i}}.conv{{j}}.weight", f"{theirs}.{{i}}.conv{{j}}.weight") for theirs, ours in _STAGES.items()),
    *(same(f"{ours}.{{i}}.conv{{j}}.norm.{{s}}", f"{theirs}.{{i}}.bn{{j}}.{{s}}") for theirs, ours in _STAGES.items()),
    *(same(f"{ours}.{{i}}.shortcut.weight", f"{theirs}.{{i}}.downsample.0.weight") for theirs, ours in _STAGES.items()),
    *(
        same(f"{ours}.{{i}}.shortcut.norm.{{s}}", f"{theirs}.{{i}}.downsample.1.{{s}}")
        for theirs, ours in _STAGES.items()
    ),
]
_RESNET_IGNORED = r"fc\.(weight|bias)|.*num_batches_tracked"
SWIN = [
    same("backbone.absolute_pos_embed", "absolute_pos_embed"),
    same("backbone.patch_embed.{w}", "patch_embed.{w}"),
    same("backbone.layers.{w}", "layers.{w}"),
]
# The classifier, the last norm (each map gets a norm of its own here), and masks that are computed.
_SWIN_IGNORED = r"(norm|head|head\.fc)\.(weight|bias)|.*attn_mask"


def resnet(weights: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """A ResNet of torchvision or timm; UserError for variants with other parts."""
    if "conv1.weight" not in weights:
        hint = " Its stem has several convolutions." if "conv1.0.weight" in weights else ""
        raise UserError(f"{where} is no ResNet of torchvision or timm that fits here: it has no conv1.weight.{hint}")
    return to_ours(weights, RESNET, _RESNET_IGNORED, where)


def swin(weights: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """A Swin of its authors' releases, or of timm, which counts the steps between stages from 1."""
    if "patch_embed.proj.weight" not in weights:
        raise UserError(f"{where} is no Swin: it has no patch_embed.proj.weight.")
    if not any(name.startswith("layers.0.downsample.") for name in weights):
        weights = {_earlier(name): value for name, value in weights.items()}
    converted = to_ours(weights, SWIN, _SWIN_IGNORED, where)
    positions = converted.get("backbone.absolute_pos_embed")
    if positions is not None and positions.dim() == 3:  # (1, places, width)
        side = math.isqrt(positions.shape[1])
        if side * side != positions.shape[1]:
            raise UserError(f"{where} cannot be converted: its {positions.shape[1]} absolute positions are no square.")
        converted["backbone.absolute_pos_embed"] = positions.transpose(1, 2).unflatten(2, (side, side)).contiguous()
    return converted


def _earlier(name: str) -> str:
    return re.sub(r"^layers\.(\d+)\.downsample\.", lambda match: f"layers.{int(match[1]) - 1}.downsample.", name)
