"""Mask2Former's pixel decoder: a deformable transformer encoder over three levels, then FPN steps to finer ones."""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from fvcore.nn import weight_init
from torch import Tensor, nn
from torch.nn import functional as F

from PADing.modeling.pixel_decoder.fpn import NUM_LEVELS, by_stride, conv_norm, select_features
from PADing.modeling.pixel_decoder.ops import MSDeformAttn
from PADing.modeling.position_encoding import PositionEmbeddingSine

Shapes = list[tuple[int, int]]


class MSDeformAttnTransformerEncoderLayer(nn.Module):
    """Multi-scale deformable self-attention and feed-forward network, post-norm (Deformable DETR, Sec. 4.1)."""

    def __init__(self, d_model: int, d_ffn: int, dropout: float, n_levels: int, n_heads: int, n_points: int) -> None:
        super().__init__()
        self.self_attn = MSDeformAttn(d_model, n_levels, n_heads, n_points)
        self.norm1 = nn.LayerNorm(d_model)
        self.linear1 = nn.Linear(d_model, d_ffn)
        self.linear2 = nn.Linear(d_ffn, d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, reference_points: Tensor, shapes: Shapes) -> Tensor:
        """x: (B, S, C); positions: (S, C); reference_points: (B, S, levels, 2). Returns (B, S, C)."""
        x = self.norm1(x + self.drop(self.self_attn(x + positions, reference_points, x, shapes)))
        return self.norm2(x + self.drop(self.linear2(self.drop(F.relu(self.linear1(x), inplace=True)))))


class MSDeformAttnTransformerEncoder(nn.Module):
    """A stack of encoder layers: (B, S, C) -> (B, S, C), S places of all levels one after another."""

    def __init__(self, num_layers: int, **layer) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MSDeformAttnTransformerEncoderLayer(**layer) for _ in range(num_layers))

    def forward(self, x: Tensor, positions: Tensor, shapes: Shapes) -> Tensor:
        """positions: (S, C); shapes: (h, w) of each level."""
        centres = _cell_centres(shapes, x).expand(x.shape[0], -1, len(shapes), -1)
        for layer in self.layers:
            x = layer(x, positions, centres, shapes)
        return x


class MSDeformAttnTransformerEncoderOnly(nn.Module):
    """Flattens the levels, tells them apart by ``level_embed`` (part of the positions), and encodes them together."""

    def __init__(self, d_model: int, num_layers: int, n_levels: int, **layer) -> None:
        super().__init__()
        self.encoder = MSDeformAttnTransformerEncoder(num_layers, d_model=d_model, n_levels=n_levels, **layer)
        self.level_embed = nn.Parameter(torch.empty(n_levels, d_model))
        for module in self.encoder.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
        for module in self.encoder.modules():
            if isinstance(module, MSDeformAttn):
                module.reset_parameters()
        nn.init.normal_(self.level_embed)

    def forward(self, levels: list[Tensor], tables: list[Tensor]) -> list[Tensor]:
        """levels: maps (B, C, h_l, w_l); tables: their positions (h_l * w_l, C). Returns maps like ``levels``."""
        shapes = [(level.shape[2], level.shape[3]) for level in levels]
        x = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)
        positions = torch.cat([table + embed for table, embed in zip(tables, self.level_embed, strict=True)])
        x = self.encoder(x, positions, shapes)
        parts = x.split([h * w for h, w in shapes], dim=1)
        return [part.transpose(1, 2).unflatten(2, shape) for part, shape in zip(parts, shapes, strict=True)]


@SEM_SEG_HEADS_REGISTRY.register()
class MSDeformAttnPixelDecoder(nn.Module):
    """The pixel decoder of Mask2Former (Sec. 3.2.2): always in the precision of its weights, autocast or not.

    Args:
        input_shape: channels and strides of the backbone's maps.
        transformer_dropout, transformer_nheads, transformer_dim_feedforward, transformer_enc_layers: of the encoder.
        conv_dim: channels of the encoder. mask_dim: channels of the mask features.
        norm: normalisation of the convolutions ("" for none).
        transformer_in_features: the maps that the encoder sees.
        common_stride: stride of the mask features; FPN steps lead from the encoder's finest map to it.
        transformer_n_points: samples for each head and level.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        transformer_dropout: float,
        transformer_nheads: int,
        transformer_dim_feedforward: int,
        transformer_enc_layers: int,
        conv_dim: int,
        mask_dim: int,
        norm: str | Callable | None = None,
        transformer_in_features: list[str],
        common_stride: int,
        transformer_n_points: int = 4,
    ) -> None:
        super().__init__()
        norm = norm or ""
        shapes = by_stride(input_shape)
        encoded = [(name, shape) for name, shape in shapes if name in transformer_in_features]
        self.in_features = [name for name, _ in shapes]
        self.transformer_in_features = [name for name, _ in reversed(encoded)]  # coarsest first
        self.input_proj = nn.ModuleList(self._projection(shape.channels, conv_dim) for _, shape in reversed(encoded))
        self.transformer = MSDeformAttnTransformerEncoderOnly(
            conv_dim,
            transformer_enc_layers,
            len(encoded),
            d_ffn=transformer_dim_feedforward,
            dropout=transformer_dropout,
            n_heads=transformer_nheads,
            n_points=transformer_n_points,
        )
        self.pe_layer = PositionEmbeddingSine(conv_dim // 2, normalize=True)
        self.mask_dim = mask_dim
        self.mask_features = Conv2d(conv_dim, mask_dim, kernel_size=1)
        weight_init.c2_xavier_fill(self.mask_features)
        steps = int(math.log2(encoded[0][1].stride) - math.log2(common_stride))
        self.fpn_features = self.in_features[:steps][::-1]  # from the encoder's finest map downwards
        for i, (_, shape) in enumerate(shapes[:steps], start=1):
            self.add_module(f"adapter_{i}", conv_norm(shape.channels, conv_dim, 1, norm))
            self.add_module(f"layer_{i}", conv_norm(conv_dim, conv_dim, 3, norm, F.relu))

    @staticmethod
    def _projection(channels: int, conv_dim: int) -> nn.Sequential:
        conv = nn.Conv2d(channels, conv_dim, kernel_size=1)
        nn.init.xavier_uniform_(conv.weight)
        nn.init.zeros_(conv.bias)
        return nn.Sequential(conv, nn.GroupNorm(32, conv_dim))

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": select_features(cfg, input_shape),
            "conv_dim": head.CONVS_DIM,
            "mask_dim": head.MASK_DIM,
            "norm": head.NORM,
            "transformer_dropout": cfg.MODEL.MASK_FORMER.DROPOUT,
            "transformer_nheads": cfg.MODEL.MASK_FORMER.NHEADS,
            "transformer_dim_feedforward": head.TRANSFORMER_ENC_DIM_FEEDFORWARD,
            "transformer_enc_layers": head.TRANSFORMER_ENC_LAYERS,
            "transformer_in_features": head.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES,
            "common_stride": head.COMMON_STRIDE,
        }

    def forward_features(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Decode the backbone's maps.

        Returns:
            mask features (B, mask_dim, h, w) at ``common_stride``; the encoder's coarsest map (B, conv_dim, ., .); the
            three coarsest maps, coarsest first.
        """
        device_type = next(iter(features.values())).device.type
        with torch.autocast(device_type=device_type, enabled=False):
            dtype = self.mask_features.weight.dtype
            inputs = [features[name].to(dtype) for name in self.transformer_in_features]
            projected = [project(x) for project, x in zip(self.input_proj, inputs, strict=True)]
            tables = [self.pe_layer.tokens(x.shape[2], x.shape[3], x) for x in projected]
            levels = self.transformer(projected, tables)
            for i, name in zip(range(len(self.fpn_features), 0, -1), self.fpn_features, strict=True):
                lateral = getattr(self, f"adapter_{i}")(features[name].to(dtype))
                upsampled = F.interpolate(levels[-1], size=lateral.shape[-2:], mode="bilinear", align_corners=False)
                levels.append(getattr(self, f"layer_{i}")(lateral + upsampled))
            return self.mask_features(levels[-1]), levels[0], levels[:NUM_LEVELS]

    def forward(self, features: dict[str, Tensor], targets=None):
        raise RuntimeError("Pixel decoders are called through forward_features")


def _cell_centres(shapes: Shapes, like: Tensor) -> Tensor:
    """Centre (x, y) in [0, 1] of each place of each level: (1, S, 1, 2)."""
    make = _centres if torch.compiler.is_compiling() else _cached_centres
    return make(tuple(shapes), like.dtype, like.device)


def _centres(shapes: tuple[tuple[int, int], ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    points = []
    for height, width in shapes:
        y = (torch.arange(height, dtype=dtype, device=device) + 0.5) / height
        x = (torch.arange(width, dtype=dtype, device=device) + 0.5) / width
        points.append(torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], dim=-1).flatten(0, 1))
    return torch.cat(points)[None, :, None]


@lru_cache(maxsize=16)
def _cached_centres(*arguments) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():
        return _centres(*arguments)
