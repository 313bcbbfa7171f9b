"""Pixel decoders with convolutions from coarse to fine, with or without a transformer on the coarsest map."""

from collections.abc import Callable, Iterator

from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from fvcore.nn import weight_init
from torch import Tensor, nn
from torch.nn import functional as F

from PADing.errors import UserError
from PADing.modeling.layers import TransformerEncoder, TransformerEncoderLayer, xavier_uniform
from PADing.modeling.position_encoding import PositionEmbeddingSine
from PADing.modeling.recompute import repeated_blocks

NUM_LEVELS = 3  # feature maps for a multi-scale transformer decoder
Norm = str | Callable | None


def by_stride(input_shape: dict[str, ShapeSpec]) -> list[tuple[str, int, int]]:
    """(name, channels, stride) of the backbone's maps, from fine to coarse."""
    maps = [(name, shape.channels or 0, shape.stride or 0) for name, shape in input_shape.items()]
    return sorted(maps, key=lambda item: item[2])


def select_features(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, ShapeSpec]:
    """The backbone's maps that ``MODEL.SEM_SEG_HEAD.IN_FEATURES`` names; UserError if the backbone lacks one."""
    wanted = cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES
    missing = [name for name in wanted if name not in input_shape]
    if missing:
        raise UserError(
            f"MODEL.SEM_SEG_HEAD.IN_FEATURES names {', '.join(missing)}, which the backbone does not produce. Add it "
            f"to the backbone's OUT_FEATURES or OUT_INDICES (now {', '.join(input_shape)})."
        )
    return {name: shape for name, shape in input_shape.items() if name in wanted}


def conv_norm(
    in_channels: int, out_channels: int, kernel: int, norm: Norm = "", activation: Callable | None = None
) -> Conv2d:
    """A convolution that keeps the size, with normalisation and activation; it has a bias only without a norm."""
    norm = norm or ""
    size, layer = {"kernel_size": kernel, "padding": kernel // 2}, get_norm(norm, out_channels)
    conv = Conv2d(in_channels, out_channels, **size, bias=norm == "", norm=layer, activation=activation)
    weight_init.c2_xavier_fill(conv)
    return conv


class PixelDecoder(nn.Module):
    """Base of pixel decoders. A step to a finer map adds ``adapter_i`` of it to the upsampled map, then ``layer_i``.

    Args:
        input_shape: of the backbone's maps.
        conv_dim: channels inside.
        mask_dim: channels of the mask features.
        norm: normalisation of the convolutions; "": none.
    """

    upsampling: str  # mode of F.interpolate

    def __init__(self, input_shape: dict[str, ShapeSpec], conv_dim: int, mask_dim: int, norm: Norm = None) -> None:
        super().__init__()
        self.in_features = [name for name, _, _ in by_stride(input_shape)]
        self.conv_dim, self.mask_dim, self.norm = conv_dim, mask_dim, norm

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        """Arguments from ``MODEL.SEM_SEG_HEAD``."""
        head = cfg.MODEL.SEM_SEG_HEAD
        shape = select_features(cfg, input_shape)
        return {"input_shape": shape, "conv_dim": head.CONVS_DIM, "mask_dim": head.MASK_DIM, "norm": head.NORM}

    def add_step(self, i: int, channels: int) -> None:
        """Create the convolutions of the step to the ``i``-th finest map, counted from 1."""
        self.add_module(f"adapter_{i}", conv_norm(channels, self.conv_dim, 1, self.norm))
        self.add_module(f"layer_{i}", conv_norm(self.conv_dim, self.conv_dim, 3, self.norm, F.relu_))

    def step(self, i: int, feature: Tensor, coarser: Tensor) -> Tensor:
        """The result (B, conv_dim, ., .) of a step, from the ``i``-th finest map and the result of the step before."""
        corners = None if self.upsampling == "nearest" else False
        x = getattr(self, f"adapter_{i}")(feature)
        # In place, and without a name for the upsampled map: the finest maps are large; no gradient needs the parts.
        x += F.interpolate(coarser, x.shape[-2:], mode=self.upsampling, align_corners=corners)
        return getattr(self, f"layer_{i}")(x)

    def forward_features(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """Mask features, encoder features and levels from the backbone's maps.

        Mask features are (B, mask_dim, h, w) at the finest stride; encoder features (B, conv_dim, ., .) at the coarsest
        stride, or None; levels the three coarsest maps (B, conv_dim, ., .), coarsest first.
        """
        raise NotImplementedError

    def recomputable(self) -> Iterator[tuple[nn.Module, str]]:
        """The parts for activation checkpointing, with the methods that are computed again: steps, encoder layers."""
        yield self, "step"
        yield from ((layer, "forward") for layer in repeated_blocks(self))

    def forward(self, features: dict[str, Tensor], targets=None):
        """RuntimeError: call ``forward_features``. Pixel decoders are registered as heads, but return features."""
        raise RuntimeError("Pixel decoders are called through forward_features")


@SEM_SEG_HEADS_REGISTRY.register()
class BasePixelDecoder(PixelDecoder):
    """A feature pyramid: ``layer_n`` on the coarsest map, then steps with nearest upsampling; see the base class."""

    upsampling = "nearest"

    @configurable
    def __init__(self, input_shape: dict[str, ShapeSpec], *, conv_dim: int, mask_dim: int, norm: Norm = None) -> None:
        super().__init__(input_shape, conv_dim, mask_dim, norm)
        *finer, coarsest = (channels for _, channels, _ in by_stride(input_shape))
        for i, channels in enumerate(finer, start=1):
            self.add_step(i, channels)
        self.add_coarsest(len(finer) + 1, coarsest)
        self.mask_features = conv_norm(conv_dim, mask_dim, 3)

    def add_coarsest(self, i: int, channels: int) -> None:
        """Create the modules for :meth:`coarsest`."""
        self.add_module(f"layer_{i}", conv_norm(channels, self.conv_dim, 3, self.norm, F.relu_))

    def coarsest(self, feature: Tensor) -> tuple[Tensor, Tensor | None]:
        """The map (B, conv_dim, ., .) of the coarsest feature, and encoder features or None."""
        return getattr(self, f"layer_{len(self.in_features)}")(feature), None

    def forward_features(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """See :meth:`PixelDecoder.forward_features`; there are encoder features if there is a transformer."""
        y, encoded = self.coarsest(features[self.in_features[-1]])
        levels = [y]
        for i in range(len(self.in_features) - 1, 0, -1):
            levels.append(self.step(i, features[self.in_features[i - 1]], levels[-1]))
        return self.mask_features(levels[-1]), encoded, levels[:NUM_LEVELS]


@SEM_SEG_HEADS_REGISTRY.register()
class TransformerEncoderPixelDecoder(BasePixelDecoder):
    """The feature pyramid on top of a transformer encoder, which runs on the coarsest map; see the base class."""

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
        **pyramid,
    ) -> None:
        super().__init__(input_shape, **pyramid)
        self.input_proj = conv_norm(by_stride(input_shape)[-1][1], self.conv_dim, 1)
        layer = TransformerEncoderLayer(
            self.conv_dim, transformer_nheads, transformer_dim_feedforward, transformer_dropout, transformer_pre_norm
        )
        self.transformer = nn.ModuleDict({"encoder": TransformerEncoder(layer, transformer_enc_layers)})
        xavier_uniform(self.transformer)
        self.pe_layer = PositionEmbeddingSine(self.conv_dim // 2, normalize=True)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        """Arguments from ``MODEL.SEM_SEG_HEAD`` and ``MODEL.MASK_FORMER``."""
        node = cfg.MODEL.MASK_FORMER
        return {
            **super().from_config(cfg, input_shape),
            "transformer_dropout": node.DROPOUT,
            "transformer_nheads": node.NHEADS,
            "transformer_dim_feedforward": node.DIM_FEEDFORWARD,
            "transformer_enc_layers": cfg.MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS,
            "transformer_pre_norm": node.PRE_NORM,
        }

    def add_coarsest(self, i: int, channels: int) -> None:
        """As in the base class; its input is the encoder's output, which has ``conv_dim`` channels."""
        super().add_coarsest(i, self.conv_dim)

    def coarsest(self, feature: Tensor) -> tuple[Tensor, Tensor | None]:
        """The map (B, conv_dim, ., .) of the encoder's output, and that output."""
        tokens = self.input_proj(feature).flatten(2).transpose(1, 2)
        positions = self.pe_layer.tokens(feature.shape[-2], feature.shape[-1], tokens)
        encoded = self.transformer["encoder"](tokens, positions).transpose(1, 2).unflatten(2, feature.shape[-2:])
        return super().coarsest(encoded)[0], encoded
