"""Whole segmenters: Mask2Former's model zoo, and transformers' ``Mask2FormerForUniversalSegmentation``, both ways."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from PADing.conversion.renaming import same, to_ours, to_theirs
from PADing.conversion.sizes import PREDICTOR, Sizes, head_sizes, swin_sizes
from PADing.errors import UserError

CLASS_HEAD = (f"{PREDICTOR}class_embed.", "criterion.empty_weight")
_ENCODER = "model.pixel_level_module.encoder."
_PIXELS = "model.pixel_level_module.decoder."
_QUERIES = "model.transformer_module."
_BLOCK, _THEIR_BLOCK = "backbone.layers.{i}.blocks.{j}.", f"{_ENCODER}encoder.layers.{{i}}.blocks.{{j}}."
_OUR_PIXELS = "sem_seg_head.pixel_decoder."
_LAYER, _THEIR_LAYER = f"{_OUR_PIXELS}transformer.encoder.layers.{{i}}.", f"{_PIXELS}encoder.layers.{{i}}."
_DECODER = f"{_QUERIES}decoder.layers.{{i}}."
_SELF = f"{PREDICTOR}transformer_self_attention_layers.{{i}}."
_CROSS = f"{PREDICTOR}transformer_cross_attention_layers.{{i}}."
_FFN = f"{PREDICTOR}transformer_ffn_layers.{{i}}."
# The names of files that transformers writes; those in its memory differ from version to version.
TRANSFORMERS = [
    same("backbone.patch_embed.proj.{p}", f"{_ENCODER}embeddings.patch_embeddings.projection.{{p}}"),
    same("backbone.patch_embed.norm.{p}", f"{_ENCODER}embeddings.norm.{{p}}"),
    same(_BLOCK + "norm1.{p}", _THEIR_BLOCK + "layernorm_before.{p}"),
    same(_BLOCK + "norm2.{p}", _THEIR_BLOCK + "layernorm_after.{p}"),
    same(_BLOCK + "attn.relative_position_bias_table", _THEIR_BLOCK + "attention.self.relative_position_bias_table"),
    same(_BLOCK + "attn.qkv.{p}", *(_THEIR_BLOCK + f"attention.self.{x}.{{p}}" for x in ("query", "key", "value"))),
    same(_BLOCK + "attn.proj.{p}", _THEIR_BLOCK + "attention.output.dense.{p}"),
    same(_BLOCK + "mlp.fc1.{p}", _THEIR_BLOCK + "intermediate.dense.{p}"),
    same(_BLOCK + "mlp.fc2.{p}", _THEIR_BLOCK + "output.dense.{p}"),
    same("backbone.layers.{i}.downsample.norm.{p}", f"{_ENCODER}encoder.layers.{{i}}.downsample.norm.{{p}}"),
    same("backbone.layers.{i}.downsample.reduction.{p}", f"{_ENCODER}encoder.layers.{{i}}.downsample.reduction.{{p}}"),
    *(same(f"backbone.norm{i}.{{p}}", f"{_ENCODER}hidden_states_norms.stage{i + 1}.{{p}}") for i in range(4)),
    same(f"{_OUR_PIXELS}input_proj.{{i}}.{{j}}.{{p}}", f"{_PIXELS}input_projections.{{i}}.{{j}}.{{p}}"),
    same(f"{_OUR_PIXELS}transformer.level_embed", f"{_PIXELS}level_embed"),
    same(_LAYER + "self_attn.{w}", _THEIR_LAYER + "self_attn.{w}"),
    same(_LAYER + "norm1.{p}", _THEIR_LAYER + "self_attn_layer_norm.{p}"),
    same(_LAYER + "linear1.{p}", _THEIR_LAYER + "fc1.{p}"),
    same(_LAYER + "linear2.{p}", _THEIR_LAYER + "fc2.{p}"),
    same(_LAYER + "norm2.{p}", _THEIR_LAYER + "final_layer_norm.{p}"),
    same(f"{_OUR_PIXELS}mask_features.{{p}}", f"{_PIXELS}mask_projection.{{p}}"),
    *(same(f"{_OUR_PIXELS}{x}_{{i}}.weight", f"{_PIXELS}{x}_{{i}}.0.weight") for x in ("adapter", "layer")),
    *(same(f"{_OUR_PIXELS}{x}_{{i}}.norm.{{p}}", f"{_PIXELS}{x}_{{i}}.1.{{p}}") for x in ("adapter", "layer")),
    *(
        same(_SELF + f"self_attn.in_proj_{x}", *(_DECODER + f"self_attn.{y}_proj.{x}" for y in "qkv"))
        for x in ("weight", "bias")
    ),
    same(_SELF + "self_attn.out_proj.{p}", _DECODER + "self_attn.out_proj.{p}"),
    same(_SELF + "norm.{p}", _DECODER + "self_attn_layer_norm.{p}"),
    same(_CROSS + "multihead_attn.{w}", _DECODER + "cross_attn.{w}"),
    same(_CROSS + "norm.{p}", _DECODER + "cross_attn_layer_norm.{p}"),
    same(_FFN + "linear1.{p}", _DECODER + "fc1.{p}"),
    same(_FFN + "linear2.{p}", _DECODER + "fc2.{p}"),
    same(_FFN + "norm.{p}", _DECODER + "final_layer_norm.{p}"),
    same(f"{PREDICTOR}decoder_norm.{{p}}", f"{_QUERIES}decoder.layernorm.{{p}}"),
    same(f"{PREDICTOR}query_feat.weight", f"{_QUERIES}queries_features.weight"),
    same(f"{PREDICTOR}query_embed.weight", f"{_QUERIES}queries_embedder.weight"),
    same(f"{PREDICTOR}level_embed.weight", f"{_QUERIES}level_embed.weight"),
    same(f"{PREDICTOR}mask_embed.layers.{{i}}.{{p}}", f"{_QUERIES}decoder.mask_predictor.mask_embedder.{{i}}.0.{{p}}"),
    same(f"{PREDICTOR}class_embed.{{p}}", "class_predictor.{p}"),
    same("criterion.empty_weight", "criterion.empty_weight"),
]
# Constants, and the last norm of the backbone, which no output sees.
_IGNORED = rf"{_ENCODER}((swin|encoder)\.)?layernorm\.(weight|bias)|.*relative_position_index"


def from_zoo(weights: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """A file of Mask2Former's model zoo, or of its code: the names are ours, but for older files."""
    renamed = {name.replace(f"{PREDICTOR}static_query.", f"{PREDICTOR}query_feat."): x for name, x in weights.items()}
    foreign = [name for name in renamed if not name.startswith(("backbone.", "sem_seg_head.", "criterion."))]
    if foreign or f"{PREDICTOR}mask_embed.layers.0.weight" not in renamed:
        found = foreign[0] if foreign else f"no {PREDICTOR}mask_embed"
        raise UserError(f"{where} is no segmenter of Mask2Former: it has {found}.")
    head_sizes(renamed, where)
    return renamed


def from_transformers(weights: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The weights of a ``Mask2FormerForUniversalSegmentation`` with a Swin backbone; UserError for others."""
    if f"{_QUERIES}queries_features.weight" not in weights:
        raise UserError(f"{where} is no Mask2FormerForUniversalSegmentation of transformers: it has no queries.")
    if f"{_ENCODER}embeddings.patch_embeddings.projection.weight" not in weights:
        raise UserError(f"{where} cannot be converted: its backbone is no Swin, the only one of these converters.")
    converted = to_ours(weights, TRANSFORMERS, _IGNORED, where)
    for name in [name for name in converted if name.endswith("relative_position_bias_table")]:
        table = converted[name]
        converted[name.replace("bias_table", "index")] = _relative_positions(table, f"{where}: {name}")
    return converted


def to_transformers(weights: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The weights of a MaskFormer on Swin, with the names of transformers' files; UserError for other models."""
    if any(name.startswith("backbone.") for name in weights) and "backbone.patch_embed.proj.weight" not in weights:
        raise UserError(f"{where} cannot be converted: transformers' Mask2Former has Swin backbones only.")
    return to_theirs(weights, TRANSFORMERS, r".*relative_position_index", where)


def transformers_config(weights: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """The content of ``config.json`` for weights with our names, by their shapes."""
    sizes: Sizes = {**swin_sizes(weights, where), **head_sizes(weights, where)}
    if "MODEL.SEM_SEG_HEAD.NUM_CLASSES" not in sizes:
        raise UserError(f"{where} cannot be converted: it has no class head.")

    def of(section: str) -> dict[str, Any]:
        return {key.rpartition(".")[2]: value for key, value in sizes.items() if key.startswith(f"MODEL.{section}.")}

    swin, head, node = of("SWIN"), of("SEM_SEG_HEAD"), of("MASK_FORMER")
    classes = head["NUM_CLASSES"]
    stages = [f"stage{i + 1}" for i in range(len(swin["DEPTHS"]))]
    backbone = {
        "model_type": "swin", "embed_dim": swin["EMBED_DIM"], "depths": swin["DEPTHS"],
        "num_heads": swin["NUM_HEADS"], "window_size": swin["WINDOW_SIZE"], "patch_size": swin["PATCH_SIZE"],
        "mlp_ratio": swin["MLP_RATIO"], "qkv_bias": swin["QKV_BIAS"], "out_features": stages,
    }  # fmt: skip
    return {
        "architectures": ["Mask2FormerForUniversalSegmentation"], "model_type": "mask2former",
        "backbone_config": backbone, "id2label": {str(i): f"LABEL_{i}" for i in range(classes)},
        "label2id": {f"LABEL_{i}": i for i in range(classes)}, "feature_size": head["CONVS_DIM"],
        "mask_feature_size": head["MASK_DIM"], "hidden_dim": node["HIDDEN_DIM"],
        "encoder_feedforward_dim": head["TRANSFORMER_ENC_DIM_FEEDFORWARD"],
        "encoder_layers": head["TRANSFORMER_ENC_LAYERS"], "decoder_layers": node["DEC_LAYERS"],
        "num_attention_heads": node["NHEADS"], "dim_feedforward": node["DIM_FEEDFORWARD"],
        "num_queries": node["NUM_OBJECT_QUERIES"],
    }  # fmt: skip


def _relative_positions(table: Tensor, where: str) -> Tensor:
    """(w^2, w^2): the row of the table for each pair of places of a window, a constant of the published files."""
    window = (math.isqrt(len(table)) + 1) // 2
    if table.dim() != 2 or (2 * window - 1) ** 2 != len(table):
        raise UserError(f"{where} has the shape {tuple(table.shape)}, which is that of no window.")
    place = torch.arange(window**2)
    row, column = place // window, place % window
    return (row[:, None] - row + window - 1) * (2 * window - 1) + column[:, None] - column + window - 1
