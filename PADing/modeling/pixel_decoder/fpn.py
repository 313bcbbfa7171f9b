"""Pixel decoders that go from coarse to fine by convolutions, with or without a transformer on the coarsest map."""

from collections.abc import Callable

import fvcore.nn.weight_init as weight_init
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from PADing.errors import UserError
from PADing.modeling.position_encoding import PositionEmbeddingSine
from PADing.modeling.transformer_decoder.transformer import TransformerEncoder, TransformerEncoderLayer

NUM_LEVELS = 3  # feature maps handed to a multi-scale transformer decoder


def build_pixel_decoder(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """Build the pixel decoder that ``MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME`` names.

    Raises:
        UserError: nothing of that name, or nothing that decodes pixels.
    """
    name = cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME
    if name not in SEM_SEG_HEADS_REGISTRY:
        known = ", ".join(sorted(key for key, _ in SEM_SEG_HEADS_REGISTRY))
        raise UserError(f"MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME {name!r} is not registered. There are: {known}")
    model = SEM_SEG_HEADS_REGISTRY.get(name)(cfg, input_shape)
    if not callable(getattr(model, "forward_features", None)):
        raise UserError(f"MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME is {name!r}, which has no forward_features method")
    return model


def select_features(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, ShapeSpec]:
    """The backbone's maps that ``MODEL.SEM_SEG_HEAD.IN_FEATURES`` names.

    Raises:
        UserError: the backbone does not produce one of them.
    """
    wanted = cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES
    missing = [name for name in wanted if name not in input_shape]
    if missing:
        raise UserError(
            f"MODEL.SEM_SEG_HEAD.IN_FEATURES names {', '.join(missing)}, which the backbone does not produce. Add it "
            f"to the backbone's OUT_FEATURES (now {', '.join(input_shape)})."
        )
    return {name: shape for name, shape in input_shape.items() if name in wanted}


def by_stride(input_shape: dict[str, ShapeSpec]) -> list[tuple[str, ShapeSpec]]:
    """Feature maps from fine to coarse."""
    return sorted(input_shape.items(), key=lambda item: item[1].stride)


def conv_norm(
    in_channels: int, out_channels: int, kernel: int, norm: str | Callable, activation: Callable | None = None
) -> Conv2d:
    """Convolution that keeps the size, with normalisation and activation; a bias only where there is no norm."""
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel,
        padding=kernel // 2,
        bias=norm == "",
        norm=get_norm(norm, out_channels),
        activation=activation,
    )
    weight_init.c2_xavier_fill(conv)
    return conv


@SEM_SEG_HEADS_REGISTRY.register()
class BasePixelDecoder(nn.Module):
    """A feature pyramid: ``layer_n`` on the coarsest map; then nearest upsampling + ``adapter_i``, then ``layer_i``.

    Args:
        input_shape: channels and strides of the backbone's maps.
        conv_dim: channels inside. mask_dim: channels of the mask features.
        norm: normalisation of every convolution ("" for none).
    """

    @configurable
    def __init__(
        self, input_shape: dict[str, ShapeSpec], *, conv_dim: int, mask_dim: int, norm: str | Callable | None = None
    ) -> None:
        super().__init__()
        norm = norm or ""
        shapes = by_stride(input_shape)
        self.in_features = [name for name, _ in shapes]
        for i, (_, shape) in enumerate(shapes, start=1):
            if i < len(shapes):
                self.add_module(f"adapter_{i}", conv_norm(shape.channels, conv_dim, 1, norm))
                self.add_module(f"layer_{i}", conv_norm(conv_dim, conv_dim, 3, norm, F.relu))
            else:
                self.add_coarsest(i, shape.channels, conv_dim, norm)
        self.mask_dim = mask_dim
        self.mask_features = Conv2d(conv_dim, mask_dim, kernel_size=3, padding=1)
        weight_init.c2_xavier_fill(self.mask_features)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": select_features(cfg, input_shape),
            "conv_dim": head.CONVS_DIM,
            "mask_dim": head.MASK_DIM,
            "norm": head.NORM,
        }

    def add_coarsest(self, i: int, channels: int, conv_dim: int, norm: str | Callable) -> None:
        """Create what :meth:`coarsest` needs."""
        self.add_module(f"layer_{i}", conv_norm(channels, conv_dim, 3, norm, F.relu))

    def coarsest(self, feature: Tensor) -> tuple[Tensor, Tensor | None]:
        """(conv_dim map of the coarsest feature, encoder features if there are any)."""
        return getattr(self, f"layer_{len(self.in_features)}")(feature), None

    def forward_features(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """Decode the backbone's maps.

        Returns:
            mask features (B, mask_dim, h, w) at the finest stride; encoder features (B, conv_dim, ., .) of the coarsest
            stride, or None; the three coarsest maps (B, conv_dim, ., .), coarsest first.
        """
        y, encoded = self.coarsest(features[self.in_features[-1]])
        levels = [y]
        for i in range(len(self.in_features) - 1, 0, -1):
            lateral = getattr(self, f"adapter_{i}")(features[self.in_features[i - 1]])
            y = getattr(self, f"layer_{i}")(lateral + F.interpolate(y, size=lateral.shape[-2:], mode="nearest"))
            levels.append(y)
        return self.mask_features(y), encoded, levels[:NUM_LEVELS]

    def forward(self, features: dict[str, Tensor], targets=None):
        raise RuntimeError("Pixel decoders are called through forward_features")


@SEM_SEG_HEADS_REGISTRY.register()
class TransformerEncoderPixelDecoder(BasePixelDecoder):
    """The feature pyramid on top of a transformer encoder, which runs on the coarsest map.

    Args:
        transformer_dropout, transformer_nheads, transformer_dim_feedforward, transformer_enc_layers,
        transformer_pre_norm: of the encoder. Others: see :class:`BasePixelDecoder`.
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
        transformer_pre_norm: bool,
        conv_dim: int,
        mask_dim: int,
        norm: str | Callable | None = None,
    ) -> None:
        super().__init__(input_shape, conv_dim=conv_dim, mask_dim=mask_dim, norm=norm)
        channels = by_stride(input_shape)[-1][1].channels
        self.input_proj = Conv2d(channels, conv_dim, kernel_size=1)
        weight_init.c2_xavier_fill(self.input_proj)
        layer = TransformerEncoderLayer(
            conv_dim, transformer_nheads, transformer_dim_feedforward, transformer_dropout, transformer_pre_norm
        )
        self.transformer = nn.Module()
        self.transformer.encoder = TransformerEncoder(layer, transformer_enc_layers)
        for parameter in self.transformer.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        self.pe_layer = PositionEmbeddingSine(conv_dim // 2, normalize=True)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        node = cfg.MODEL.MASK_FORMER
        return {
            **super().from_config(cfg, input_shape),
            "transformer_dropout": node.DROPOUT,
            "transformer_nheads": node.NHEADS,
            "transformer_dim_feedforward": node.DIM_FEEDFORWARD,
            "transformer_enc_layers": cfg.MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS,
            "transformer_pre_norm": node.PRE_NORM,
        }

    def add_coarsest(self, i: int, channels: int, conv_dim: int, norm: str | Callable) -> None:
        super().add_coarsest(
            i, conv_dim, conv_dim, norm
        )  # on the encoder's output, which already has conv_dim channels

    def coarsest(self, feature: Tensor) -> tuple[Tensor, Tensor | None]:
        tokens = self.input_proj(feature).flatten(2).transpose(1, 2)
        positions = self.pe_layer.tokens(*feature.shape[-2:], tokens)
        encoded = self.transformer.encoder(tokens, positions).transpose(1, 2).unflatten(2, feature.shape[-2:])
        return super().coarsest(encoded)[0], encoded
