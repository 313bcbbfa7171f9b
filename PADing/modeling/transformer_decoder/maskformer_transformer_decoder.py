"""MaskFormer's decoder, a transformer on one feature map, and the base class that Mask2Former's decoder shares."""

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d
from fvcore.nn import weight_init
from torch import Tensor, nn

from PADing.modeling.layers import (
    MLP,
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
    xavier_uniform,
)
from PADing.modeling.position_encoding import PositionEmbeddingSine
from PADing.modeling.registry import TRANSFORMER_DECODER_REGISTRY


class QueryDecoder(nn.Module):
    """Base of transformer decoders; a subclass adds the layers between the queries and their predictions.

    Args:
        in_channels: channels of the feature maps.
        mask_classification: predict a class for each query; False: query ``k`` is class ``k``.
        num_classes: number of classes without "no object".
        hidden_dim: width C of the queries.
        num_queries: number Q of queries.
        mask_dim: channels of the mask features.
        enforce_input_project: project the features even if their width is ``hidden_dim``.
        deep_supervision: in training, predict after every layer; False: only after the last one.
        transformer: arguments of :meth:`add_transformer`.
    """

    input_proj: nn.Module

    @configurable
    def __init__(
        self,
        in_channels: int,
        mask_classification: bool = True,
        *,
        num_classes: int,
        hidden_dim: int,
        num_queries: int,
        mask_dim: int,
        enforce_input_project: bool,
        deep_supervision: bool = True,
        **transformer,
    ) -> None:
        super().__init__()
        self.mask_classification, self.deep_supervision = mask_classification, deep_supervision
        self.num_queries = num_queries
        self.pe_layer = PositionEmbeddingSine(hidden_dim // 2, normalize=True)
        # The published order of state dicts and of random initial weights.
        self.add_transformer(hidden_dim, **transformer)
        self.query_embed = nn.Embedding(num_queries, hidden_dim)
        self.add_inputs(in_channels, hidden_dim, enforce_input_project)
        if mask_classification:
            self.add_class_head(hidden_dim, num_classes)
        self.mask_embed = MLP(hidden_dim, hidden_dim, mask_dim, 3)

    def add_transformer(self, *args, **kwargs):
        """Create the layers: (hidden_dim, nheads, dim_feedforward, dec_layers, pre_norm, and those of a subclass)."""
        raise NotImplementedError

    def add_inputs(self, in_channels: int, width: int, enforce: bool) -> None:
        """Create ``input_proj``, which projects the feature map to the width of the queries."""
        self.input_proj = self.input_projection(in_channels, width, enforce)

    def add_class_head(self, hidden_dim: int, num_classes: int) -> None:
        """Create the modules that classify queries; they come before ``mask_embed`` in the state dict."""
        self.class_embed = nn.Linear(hidden_dim, num_classes + 1)

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int, mask_classification: bool) -> dict:
        """Arguments from ``MODEL.MASK_FORMER``."""
        node = cfg.MODEL.MASK_FORMER
        return {
            "in_channels": in_channels,
            "mask_classification": mask_classification,
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "hidden_dim": node.HIDDEN_DIM,
            "num_queries": node.NUM_OBJECT_QUERIES,
            "nheads": node.NHEADS,
            "dim_feedforward": node.DIM_FEEDFORWARD,
            "dec_layers": node.DEC_LAYERS,
            "pre_norm": node.PRE_NORM,
            "mask_dim": cfg.MODEL.SEM_SEG_HEAD.MASK_DIM,
            "enforce_input_project": node.ENFORCE_INPUT_PROJ,
            "deep_supervision": node.DEEP_SUPERVISION,
        }

    @staticmethod
    def input_projection(in_channels: int, width: int, enforce: bool) -> nn.Module:
        """A projection to the width of the queries; the identity if the widths agree, unless ``enforce``."""
        if in_channels == width and not enforce:
            return nn.Identity()
        projection = Conv2d(in_channels, width, kernel_size=1)
        weight_init.c2_xavier_fill(projection)
        return projection

    @staticmethod
    def draw(kernels: Tensor, mask_features: Tensor) -> Tensor:
        """Mask logits: (B, Q, mask_dim) and (B, mask_dim, h, w) -> (B, Q, h, w)."""
        return torch.bmm(kernels, mask_features.flatten(2)).unflatten(2, mask_features.shape[-2:])


@TRANSFORMER_DECODER_REGISTRY.register()
class StandardTransformerDecoder(QueryDecoder):
    """The decoder of MaskFormer (Cheng et al., Sec. 3.4)."""

    def add_transformer(
        self,
        hidden_dim: int,
        *,
        nheads: int,
        dim_feedforward: int,
        dropout: float,
        enc_layers: int,
        dec_layers: int,
        pre_norm: bool,
    ) -> None:
        """Create encoder and decoder of DETR."""
        layer = hidden_dim, nheads, dim_feedforward, dropout, pre_norm
        encoder = TransformerEncoder(TransformerEncoderLayer(*layer), enc_layers)
        decoder = TransformerDecoder(TransformerDecoderLayer(*layer), dec_layers, return_intermediate=True)
        self.transformer = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
        xavier_uniform(self.transformer)

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int, mask_classification: bool) -> dict:
        """Arguments from ``MODEL.MASK_FORMER``, with those of the encoder."""
        node = cfg.MODEL.MASK_FORMER
        shared = super().from_config(cfg, in_channels, mask_classification)
        return {**shared, "dropout": node.DROPOUT, "enc_layers": node.ENC_LAYERS}

    def forward(self, x: Tensor, mask_features: Tensor, mask: Tensor | None = None) -> dict:
        """Predict from one feature map (B, in_channels, h, w); ``mask`` is ignored, so padding is treated as image.

        ``mask_features`` are (B, mask_dim, H, W). Returns ``pred_masks`` (B, Q, H, W) logits, ``pred_embed`` (B, Q, C),
        with classification ``pred_logits`` (B, Q, K + 1), and ``aux_outputs``: the predictions of the earlier layers,
        empty without deep supervision and in evaluation.
        """
        tokens = self.input_proj(x).flatten(2).transpose(1, 2)
        positions = self.pe_layer.tokens(x.shape[2], x.shape[3], tokens).unsqueeze(0)
        memory = self.transformer["encoder"](tokens, positions).transpose(0, 1)
        # Queries start at zero and differ by their positions.
        queries = self.query_embed.weight.unsqueeze(1)  # (Q, 1, C)
        target = queries.new_zeros(queries.shape[0], tokens.shape[0], queries.shape[2])
        states = self.transformer["decoder"](target, memory, queries, positions.transpose(0, 1))
        states = states.transpose(1, 2)  # (layers, B, Q, C)
        if not (self.training and self.deep_supervision):
            states = states[-1:]
        *auxiliary, last = (self._predict(state, mask_features) for state in states)
        return {**last, "pred_embed": states[-1], "aux_outputs": auxiliary}

    def _predict(self, state: Tensor, mask_features: Tensor) -> dict[str, Tensor]:
        result = {"pred_masks": self.draw(self.mask_embed(state), mask_features)}
        if self.mask_classification:
            result["pred_logits"] = self.class_embed(state)
        return result
