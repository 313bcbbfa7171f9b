"""Mask2Former's pixel decoder: a deformable transformer encoder over three levels, then FPN steps to finer ones."""

import contextlib
import math

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from PADing.modeling.cached_table import cached_table
from PADing.modeling.layers import ResidualLayer, xavier_uniform
from PADing.modeling.linear import Linear
from PADing.modeling.pixel_decoder.fpn import NUM_LEVELS, PixelDecoder, by_stride, conv_norm
from PADing.modeling.pixel_decoder.ops import MSDeformAttn
from PADing.modeling.position_encoding import PositionEmbeddingSine

Shapes = list[tuple[int, int]]


class MSDeformAttnTransformerEncoderLayer(ResidualLayer):
    """Multi-scale deformable self-attention and feed-forward network, post-norm (Deformable DETR, Sec. 4.1)."""

    def __init__(self, d_model: int, d_ffn: int, dropout: float, n_levels: int, n_heads: int) -> None:
        super().__init__(dropout, pre_norm=False)
        self.self_attn = MSDeformAttn(d_model, n_levels, n_heads)
        self.norm1 = nn.LayerNorm(d_model)
        self.linear1, self.linear2 = Linear(d_model, d_ffn, relu=True), Linear(d_ffn, d_model)
        self.norm2 = nn.LayerNorm(d_model)

    def forward(self, x: Tensor, positions: Tensor, reference_points: Tensor, shapes: Shapes) -> Tensor:
        """x: (B, S, C); positions: (S, C); reference_points: (B, S, levels, 2). Returns (B, S, C)."""
        x = self.residual(x, self.norm1, lambda x: self.self_attn(x + positions, reference_points, x, shapes))
        return self.residual(x, self.norm2, self.feed_forward)


class MSDeformAttnTransformerEncoderOnly(nn.Module):
    """A stack of encoder layers on all levels together; ``level_embed``, added to the positions, marks each level.

    State-dict keys: ``encoder.layers.{i}``, ``level_embed``.
    """

    def __init__(self, d_model: int, num_layers: int, n_levels: int, **layer) -> None:
        super().__init__()
        stack = (MSDeformAttnTransformerEncoderLayer(d_model, n_levels=n_levels, **layer) for _ in range(num_layers))
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(stack)})
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
        centres = _cell_centres(tuple(shapes), x.dtype, x.device).expand(x.shape[0], -1, len(shapes), -1)
        for layer in self.encoder["layers"].children():
            x = layer(x, positions, centres, shapes)
        parts = x.split([h * w for h, w in shapes], dim=1)
        return [part.unflatten(1, shape).permute(0, 3, 1, 2) for part, shape in zip(parts, shapes, strict=True)]


@SEM_SEG_HEADS_REGISTRY.register()
class MSDeformAttnPixelDecoder(PixelDecoder):
    """The pixel decoder of Mask2Former (Sec. 3.2.2), computed in the precision of its weights, even inside autocast.

    ``autocast``: computed in autocast's precision instead; positions and points of attention stay in float32.

    The encoder's inputs are ``transformer_in_features``. FPN steps lead from the finest of these maps to
    ``common_stride``, the stride of the mask features. ``pyramid``: see :class:`PixelDecoder`; ``conv_dim`` is also the
    encoder's width.
    """

    upsampling = "bilinear"

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        transformer_dropout: float,
        transformer_nheads: int,
        transformer_dim_feedforward: int,
        transformer_enc_layers: int,
        transformer_in_features: list[str],
        common_stride: int,
        autocast: bool = False,
        **pyramid,
    ) -> None:
        super().__init__(input_shape, **pyramid)
        maps = by_stride(input_shape)
        encoded = [item for item in reversed(maps) if item[0] in transformer_in_features]  # coarsest first
        self.autocast = autocast
        self.transformer_in_features = [name for name, _, _ in encoded]
        self.input_proj = nn.ModuleList(self._projection(channels) for _, channels, _ in encoded)
        layer = {"d_ffn": transformer_dim_feedforward, "n_heads": transformer_nheads}
        size = self.conv_dim, transformer_enc_layers, len(encoded)
        self.transformer = MSDeformAttnTransformerEncoderOnly(*size, dropout=transformer_dropout, **layer)
        self.pe_layer = PositionEmbeddingSine(self.conv_dim // 2, normalize=True)
        self.mask_features = conv_norm(self.conv_dim, self.mask_dim, 1)
        steps = int(math.log2(encoded[-1][2]) - math.log2(common_stride))
        self.fpn_features = self.in_features[:steps]
        for i, (_, channels, _) in enumerate(maps[:steps], start=1):
            self.add_step(i, channels)

    def _projection(self, channels: int) -> nn.Sequential:
        conv = nn.Conv2d(channels, self.conv_dim, kernel_size=1)
        xavier_uniform(conv)
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
        return nn.Sequential(conv, nn.GroupNorm(32, self.conv_dim))

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        """Arguments from ``MODEL.SEM_SEG_HEAD`` and ``MODEL.MASK_FORMER``."""
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            **super().from_config(cfg, input_shape),
            "transformer_dropout": cfg.MODEL.MASK_FORMER.DROPOUT,
            "transformer_nheads": cfg.MODEL.MASK_FORMER.NHEADS,
            "transformer_dim_feedforward": head.TRANSFORMER_ENC_DIM_FEEDFORWARD,
            "transformer_enc_layers": head.TRANSFORMER_ENC_LAYERS,
            "transformer_in_features": head.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES,
            "common_stride": head.COMMON_STRIDE,
            "autocast": head.AUTOCAST,
        }

    def forward_features(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """As in the base class; mask features at ``common_stride``, encoder features at the coarsest level."""
        device_type = next(iter(features.values())).device.type
        dtype = self.mask_features.weight.dtype
        with contextlib.nullcontext() if self.autocast else torch.autocast(device_type=device_type, enabled=False):
            features = {name: features[name].to(dtype) for name in self.in_features}
            inputs = [features[name] for name in self.transformer_in_features]
            # Tokens are sums of many layers, and decide where attention reads, so they keep the precision of weights.
            projected = [project(x).to(dtype) for project, x in zip(self.input_proj, inputs, strict=True)]
            tables = [self.pe_layer.tokens(x.shape[2], x.shape[3], x) for x in projected]
            levels = self.transformer(projected, tables)
            for i in range(len(self.fpn_features), 0, -1):
                levels.append(self.step(i, features[self.fpn_features[i - 1]], levels[-1]))
            return self.mask_features(levels[-1]), levels[0], levels[:NUM_LEVELS]


@cached_table
def _cell_centres(shapes: tuple[tuple[int, int], ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The centre (x, y) in [0, 1] of each position of each level: (1, S, 1, 2)."""
    points = []
    for height, width in shapes:
        y = (torch.arange(height, dtype=dtype, device=device) + 0.5) / height
        x = (torch.arange(width, dtype=dtype, device=device) + 0.5) / width
        points.append(torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], dim=-1).flatten(0, 1))
    return torch.cat(points)[None, :, None]
