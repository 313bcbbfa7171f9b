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


class Transformer(nn.Module):
    """Encoder and decoder of DETR: queries start at zero and are told apart by their positions."""

    def __init__(
        self,
        width: int,
        *,
        nheads: int,
        dim_feedforward: int,
        dropout: float,
        enc_layers: int,
        dec_layers: int,
        pre_norm: bool,
    ) -> None:
        super().__init__()
        layer = width, nheads, dim_feedforward, dropout, pre_norm
        self.encoder = TransformerEncoder(TransformerEncoderLayer(*layer), enc_layers)
        self.decoder = TransformerDecoder(TransformerDecoderLayer(*layer), dec_layers, return_intermediate=True)
        xavier_uniform(self)

    def forward(self, tokens: Tensor, queries: Tensor, positions: Tensor) -> Tensor:
        """tokens: (B, S, C); queries: (Q, C); positions: (1, S, C). Returns (layers, B, Q, C)."""
        memory = self.encoder(tokens, positions)
        target = queries.new_zeros(queries.shape[0], tokens.shape[0], queries.shape[1])
        states = self.decoder(target, memory.transpose(0, 1), queries.unsqueeze(1), positions.transpose(0, 1))
        return states.transpose(1, 2)


@TRANSFORMER_DECODER_REGISTRY.register()
class StandardTransformerDecoder(QueryDecoder):
    """The decoder of MaskFormer (Cheng et al., Sec. 3.4)."""

    def add_transformer(self, hidden_dim: int, **transformer) -> None:
        """Create the transformer; arguments as :class:`Transformer`'s."""
        self.transformer = Transformer(hidden_dim, **transformer)

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
        states = self.transformer(tokens, self.query_embed.weight, positions)  # (layers, B, Q, C)
        if not (self.training and self.deep_supervision):
            states = states[-1:]
        *auxiliary, last = (self._predict(state, mask_features) for state in states)
        return {**last, "pred_embed": states[-1], "aux_outputs": auxiliary}

    def _predict(self, state: Tensor, mask_features: Tensor) -> dict[str, Tensor]:
        result = {"pred_masks": self.draw(self.mask_embed(state), mask_features)}
        if self.mask_classification:
            result["pred_logits"] = self.class_embed(state)
        return result
