"""MaskFormer's decoder: a classic transformer on one feature map, and masks from its queries."""

from detectron2.config import CfgNode
from torch import Tensor, nn

from PADing.modeling.layers import (
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
    xavier_uniform,
)
from PADing.modeling.registry import TRANSFORMER_DECODER_REGISTRY
from PADing.modeling.transformer_decoder.query_decoder import QueryDecoder


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
        """Predict from one feature map.

        Args:
            x: (B, in_channels, h, w). mask_features: (B, mask_dim, H, W). mask: ignored; padding is treated as image.

        Returns:
            dict with ``pred_masks`` (B, Q, H, W) logits, ``pred_embed`` (B, Q, C), with classification ``pred_logits``
            (B, Q, K + 1), and ``aux_outputs``: the predictions of the earlier layers, empty without deep supervision
            and in evaluation.
        """
        tokens = self.input_proj(x).flatten(2).transpose(1, 2)
        positions = self.pe_layer.tokens(x.shape[2], x.shape[3], tokens).unsqueeze(0)
        memory = self.transformer["encoder"](tokens, positions).transpose(0, 1)
        # Queries start at zero and are told apart by their positions.
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
