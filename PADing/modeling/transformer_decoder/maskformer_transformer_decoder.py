"""MaskFormer's decoder: a classic transformer on one feature map, and masks from its queries."""

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d
from torch import Tensor, nn

from PADing.modeling.layers import MLP
from PADing.modeling.position_encoding import PositionEmbeddingSine
from PADing.modeling.transformer_decoder.registry import TRANSFORMER_DECODER_REGISTRY
from PADing.modeling.transformer_decoder.transformer import (
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)


class Transformer(nn.Module):
    """Encoder and decoder of DETR: queries start at zero and are told apart by their positions."""

    def __init__(
        self,
        width: int,
        heads: int,
        dim_feedforward: int,
        dropout: float,
        enc_layers: int,
        dec_layers: int,
        pre_norm: bool,
    ) -> None:
        super().__init__()
        self.encoder = TransformerEncoder(
            TransformerEncoderLayer(width, heads, dim_feedforward, dropout, pre_norm), enc_layers
        )
        self.decoder = TransformerDecoder(
            TransformerDecoderLayer(width, heads, dim_feedforward, dropout, pre_norm),
            dec_layers,
            return_intermediate=True,
        )
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, tokens: Tensor, queries: Tensor, positions: Tensor) -> Tensor:
        """tokens: (B, S, C); queries: (Q, C); positions: (1, S, C). Returns (layers, B, Q, C)."""
        memory = self.encoder(tokens, positions)
        target = queries.new_zeros(queries.shape[0], tokens.shape[0], queries.shape[1])
        states = self.decoder(target, memory.transpose(0, 1), queries.unsqueeze(1), positions.transpose(0, 1))
        return states.transpose(1, 2)


@TRANSFORMER_DECODER_REGISTRY.register()
class StandardTransformerDecoder(nn.Module):
    """The decoder of MaskFormer (Cheng et al., Sec. 3.4).

    Args:
        in_channels: channels of the feature map.
        mask_classification: predict a class for each query; else query ``k`` stands for class ``k``.
        num_classes: classes without "no object".
        hidden_dim: width C. num_queries: Q. nheads, dropout, dim_feedforward, enc_layers, dec_layers, pre_norm: of the
            transformer.
        deep_supervision: in training, predict from every layer.
        mask_dim: channels of the mask features.
        enforce_input_project: project the features even where their width already is ``hidden_dim``.
    """

    @configurable
    def __init__(
        self,
        in_channels: int,
        mask_classification: bool = True,
        *,
        num_classes: int,
        hidden_dim: int,
        num_queries: int,
        nheads: int,
        dropout: float,
        dim_feedforward: int,
        enc_layers: int,
        dec_layers: int,
        pre_norm: bool,
        deep_supervision: bool,
        mask_dim: int,
        enforce_input_project: bool,
    ) -> None:
        super().__init__()
        self.mask_classification, self.deep_supervision = mask_classification, deep_supervision
        self.pe_layer = PositionEmbeddingSine(hidden_dim // 2, normalize=True)
        self.transformer = Transformer(hidden_dim, nheads, dim_feedforward, dropout, enc_layers, dec_layers, pre_norm)
        self.query_embed = nn.Embedding(num_queries, hidden_dim)
        if in_channels != hidden_dim or enforce_input_project:
            self.input_proj = Conv2d(in_channels, hidden_dim, kernel_size=1)
            weight_init.c2_xavier_fill(self.input_proj)
        else:
            self.input_proj = nn.Identity()
        if mask_classification:
            self.class_embed = nn.Linear(hidden_dim, num_classes + 1)
        self.mask_embed = MLP(hidden_dim, hidden_dim, mask_dim, 3)

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int, mask_classification: bool) -> dict:
        node = cfg.MODEL.MASK_FORMER
        return {
            "in_channels": in_channels,
            "mask_classification": mask_classification,
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "hidden_dim": node.HIDDEN_DIM,
            "num_queries": node.NUM_OBJECT_QUERIES,
            "nheads": node.NHEADS,
            "dropout": node.DROPOUT,
            "dim_feedforward": node.DIM_FEEDFORWARD,
            "enc_layers": node.ENC_LAYERS,
            "dec_layers": node.DEC_LAYERS,
            "pre_norm": node.PRE_NORM,
            "deep_supervision": node.DEEP_SUPERVISION,
            "mask_dim": cfg.MODEL.SEM_SEG_HEAD.MASK_DIM,
            "enforce_input_project": node.ENFORCE_INPUT_PROJ,
        }

    def forward(self, x: Tensor, mask_features: Tensor, mask: Tensor | None = None) -> dict:
        """Predict from one feature map.

        Args:
            x: (B, in_channels, h, w). mask_features: (B, mask_dim, H, W). mask: ignored; padding is treated as image.

        Returns:
            dict with ``pred_masks`` (B, Q, H, W) logits, ``pred_embed`` (B, Q, C), with classification ``pred_logits``
            (B, Q, K + 1), and ``aux_outputs``: the predictions of the earlier layers, empty without deep supervision
            and in evaluation.
        """
        tokens = self.input_proj(x).flatten(2).transpose(1, 2)
        positions = self.pe_layer.tokens(*x.shape[-2:], tokens).unsqueeze(0)
        states = self.transformer(tokens, self.query_embed.weight, positions)  # (layers, B, Q, C)
        if not (self.training and self.deep_supervision):
            states = states[-1:]
        *auxiliary, last = (self._predict(state, mask_features) for state in states)
        return {**last, "pred_embed": states[-1], "aux_outputs": auxiliary}

    def _predict(self, state: Tensor, mask_features: Tensor) -> dict[str, Tensor]:
        masks = torch.bmm(self.mask_embed(state), mask_features.flatten(2)).unflatten(2, mask_features.shape[-2:])
        result = {"pred_masks": masks}
        if self.mask_classification:
            result["pred_logits"] = self.class_embed(state)
        return result
