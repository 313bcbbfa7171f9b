"""Reads the sizes of a network from its weights, as config keys, and checks the weights against the network."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_backbone, build_sem_seg_head
from torch import Tensor, nn

from PADing.config import load_config
from PADing.conversion.renaming import listed
from PADing.errors import UserError
from PADing.files import REPOSITORY

BACKBONE, HEAD = "backbone.", "sem_seg_head."
PIXELS, PREDICTOR = f"{HEAD}pixel_decoder.", f"{HEAD}predictor."
_POINTS = 4  # sampling points of deformable attention
_CONSTANTS = ("num_batches_tracked", "relative_position_index")  # some files lack them

Sizes = dict[str, Any]  # config key -> value


def resnet_sizes(weights: Mapping[str, Tensor], where: str) -> Sizes:
    """Keys of a ResNet of depth 18, 34, 50, 101 or 152; UserError for another network."""
    blocks = [_count(weights, f"{BACKBONE}res{stage}.") for stage in (2, 3, 4, 5)]
    bottleneck = f"{BACKBONE}res2.0.conv3.weight" in weights
    depths = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3]}
    if bottleneck:
        depths = {50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}
    depth = next((number for number, counts in depths.items() if counts == blocks), None)
    if depth is None:
        raise UserError(f"{where} is no ResNet-18, -34, -50, -101 or -152: its stages have {blocks} blocks.")
    sizes: Sizes = {"MODEL.BACKBONE.NAME": "build_resnet_backbone", "MODEL.RESNETS.DEPTH": depth}
    sizes |= {"MODEL.RESNETS.RES2_OUT_CHANNELS": 256 if bottleneck else 64, "MODEL.RESNETS.STRIDE_IN_1X1": False}
    width = _shape(weights, f"{BACKBONE}res2.0.conv{2 if bottleneck else 1}.weight", 4, where)
    if bottleneck and width[0] != width[1]:  # ResNeXt
        sizes["MODEL.RESNETS.NUM_GROUPS"] = width[0] // width[1]
        sizes["MODEL.RESNETS.WIDTH_PER_GROUP"] = width[1]
    elif bottleneck and width[0] != 64:  # wide
        sizes["MODEL.RESNETS.WIDTH_PER_GROUP"] = width[0]
    return sizes


def swin_sizes(weights: Mapping[str, Tensor], where: str) -> Sizes:
    """Keys of a Swin; UserError for another network."""
    stages = _count(weights, f"{BACKBONE}layers.")
    depths = [_count(weights, f"{BACKBONE}layers.{i}.blocks.") for i in range(stages)]
    if not stages or not all(depths):
        raise UserError(f"{where} is no Swin: it has no layers with blocks.")
    first = f"{BACKBONE}layers.{{}}.blocks.0."
    tables = [_shape(weights, first.format(i) + "attn.relative_position_bias_table", 2, where) for i in range(stages)]
    patch = _shape(weights, f"{BACKBONE}patch_embed.proj.weight", 4, where)
    hidden = _shape(weights, first.format(0) + "mlp.fc1.weight", 2, where)
    sizes: Sizes = {"MODEL.BACKBONE.NAME": "D2SwinTransformer", "MODEL.SWIN.EMBED_DIM": patch[0]}
    sizes |= {"MODEL.SWIN.DEPTHS": depths, "MODEL.SWIN.NUM_HEADS": [heads for _, heads in tables]}
    sizes |= {"MODEL.SWIN.WINDOW_SIZE": (math.isqrt(tables[0][0]) + 1) // 2, "MODEL.SWIN.PATCH_SIZE": patch[2]}
    sizes["MODEL.SWIN.MLP_RATIO"] = hidden[0] / hidden[1]
    sizes["MODEL.SWIN.QKV_BIAS"] = first.format(0) + "attn.qkv.bias" in weights
    sizes["MODEL.SWIN.PATCH_NORM"] = f"{BACKBONE}patch_embed.norm.weight" in weights
    positions = weights.get(f"{BACKBONE}absolute_pos_embed")
    if positions is not None:
        sizes |= {"MODEL.SWIN.APE": True, "MODEL.SWIN.PRETRAIN_IMG_SIZE": positions.shape[-1] * patch[2]}
    return sizes


def head_sizes(weights: Mapping[str, Tensor], where: str) -> Sizes:
    """Keys of a Mask2Former head; UserError for another network."""
    levels = _shape(weights, f"{PIXELS}transformer.level_embed", 2, where)[0]
    offsets = _shape(weights, f"{PIXELS}transformer.encoder.layers.0.self_attn.sampling_offsets.weight", 2, where)
    mask = _shape(weights, f"{PIXELS}mask_features.weight", 4, where)
    queries = _shape(weights, f"{PREDICTOR}query_feat.weight", 2, where)
    hidden = _shape(weights, f"{PREDICTOR}transformer_ffn_layers.0.linear1.weight", 2, where)
    encoder = _shape(weights, f"{PIXELS}transformer.encoder.layers.0.linear1.weight", 2, where)
    layers = _count(weights, f"{PREDICTOR}transformer_ffn_layers.")
    sizes: Sizes = {"MODEL.SEM_SEG_HEAD.CONVS_DIM": mask[1], "MODEL.SEM_SEG_HEAD.MASK_DIM": mask[0]}
    sizes["MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS"] = _count(weights, f"{PIXELS}transformer.encoder.layers.")
    sizes["MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_DIM_FEEDFORWARD"] = encoder[0]
    sizes |= {"MODEL.MASK_FORMER.HIDDEN_DIM": queries[1], "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": queries[0]}
    sizes |= {"MODEL.MASK_FORMER.DIM_FEEDFORWARD": hidden[0], "MODEL.MASK_FORMER.DEC_LAYERS": layers + 1}
    sizes["MODEL.MASK_FORMER.NHEADS"] = max(offsets[0] // (levels * _POINTS * 2), 1)
    if f"{PREDICTOR}class_embed.bias" in weights:
        sizes["MODEL.SEM_SEG_HEAD.NUM_CLASSES"] = len(weights[f"{PREDICTOR}class_embed.bias"]) - 1
    return sizes


def check(weights: Mapping[str, Tensor], sizes: Sizes, where: str, absent: tuple[str, ...] = ()) -> None:
    """UserError unless the weights are those of the network of these sizes, but for prefixes that may be ``absent``."""
    with_head = any(name.startswith(HEAD) for name in weights)
    opts = [item for pair in sizes.items() for item in pair]
    try:
        wanted = {name: tuple(value.shape) for name, value in _network(opts, with_head).state_dict().items()}
    except UserError:
        raise
    except Exception as error:  # sizes that a hostile file claims
        raise UserError(f"{where} cannot be converted: no network has its sizes ({error}).") from error
    lacking = [x for x in wanted if x not in weights and not x.startswith(absent) and not x.endswith(_CONSTANTS)]
    computed = (*_CONSTANTS, "empty_weight")
    unknown = [name for name in weights if name not in wanted and not name.endswith(computed)]
    wrong = [name for name, shape in wanted.items() if name in weights and tuple(weights[name].shape) != shape]
    if lacking:
        raise UserError(f"{where} cannot be converted: it lacks what becomes {listed(lacking)}.")
    if unknown:
        raise UserError(f"{where} cannot be converted: it has weights without a place here: {listed(unknown)}.")
    if wrong:
        has, needs = tuple(weights[wrong[0]].shape), wanted[wrong[0]]
        raise UserError(f"{where} cannot be converted: {wrong[0]} would be {has}, but must be {needs}.")


def _network(opts: list, with_head: bool) -> nn.Module:
    base = ["MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"], "MODEL.RESNETS.NORM", "FrozenBN"]
    cfg: CfgNode = load_config(REPOSITORY / "configs" / "Mask2Former.yaml", [*base, "MODEL.DEVICE", "meta", *opts])
    with torch.device("meta"):
        backbone = build_backbone(cfg)
        head = {"sem_seg_head": build_sem_seg_head(cfg, backbone.output_shape())} if with_head else {}
    return nn.ModuleDict({"backbone": backbone, **head})


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbers follow the prefix; 0 unless they are 0, 1, 2, ..."""
    found = {name.removeprefix(prefix).partition(".")[0] for name in weights if name.startswith(prefix)}
    return len(found) if found == {str(i) for i in range(len(found))} else 0


def _shape(weights: Mapping[str, Tensor], name: str, axes: int, where: str) -> tuple[int, ...]:
    value = weights.get(name)
    if value is None or value.dim() != axes or 0 in value.shape:
        state = "is missing" if value is None else f"has the shape {tuple(value.shape)}"
        raise UserError(f"{where} cannot be converted: what becomes {name} {state}.")
    return tuple(value.shape)
