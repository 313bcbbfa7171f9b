"""Mask2Former's decoder: queries attend only to the positions inside their previous masks."""

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn
from torch.nn import functional as F

from PADing.errors import UserError
from PADing.modeling.layers import CrossAttentionLayer, FFNLayer, SelfAttentionLayer
from PADing.modeling.pixel_decoder.fpn import NUM_LEVELS
from PADing.modeling.registry import TRANSFORMER_DECODER_REGISTRY
from PADing.modeling.transformer_decoder.maskformer_transformer_decoder import QueryDecoder


@TRANSFORMER_DECODER_REGISTRY.register()
class MultiScaleMaskedTransformerDecoder(QueryDecoder):
    """Masked-attention transformer decoder (Mask2Former, Sec. 3.2).

    In layer ``i`` queries attend to feature level ``i mod levels`` (coarsest first), where the previous mask is at
    least one half; then they attend to each other, and a feed-forward network follows. The initial queries and every
    layer give a prediction.

    A method that classifies queries in another way overrides :meth:`add_class_head` and :meth:`classify`. Arguments are
    those of the base class; ``mask_classification`` must be True (else ValueError).
    """

    _version = 2
    input_proj: nn.ModuleList

    def add_transformer(
        self, hidden_dim: int, *, nheads: int, dim_feedforward: int, dec_layers: int, pre_norm: bool
    ) -> None:
        """Create ``dec_layers`` layers of three parts each, and the initial queries."""
        if not self.mask_classification:
            raise ValueError(f"{type(self).__name__} predicts masks and classes; mask_classification must be True")
        layers = range(dec_layers)
        attention = hidden_dim, nheads, pre_norm
        self.transformer_self_attention_layers = nn.ModuleList(SelfAttentionLayer(*attention) for _ in layers)
        self.transformer_cross_attention_layers = nn.ModuleList(CrossAttentionLayer(*attention) for _ in layers)
        self.transformer_ffn_layers = nn.ModuleList(FFNLayer(hidden_dim, dim_feedforward, pre_norm) for _ in layers)
        self.decoder_norm = nn.LayerNorm(hidden_dim)
        self.query_feat = nn.Embedding(self.num_queries, hidden_dim)

    def add_inputs(self, in_channels: int, width: int, enforce: bool) -> None:
        """Create ``level_embed`` and ``input_proj`` for each map, from coarse to fine."""
        self.level_embed = nn.Embedding(NUM_LEVELS, width)
        self.input_proj = nn.ModuleList(self.input_projection(in_channels, width, enforce) for _ in range(NUM_LEVELS))

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int, mask_classification: bool) -> dict:
        """As in the base class; ``DEC_LAYERS`` counts predictions, of which the first comes before any layer."""
        arguments = super().from_config(cfg, in_channels, mask_classification)
        if arguments["dec_layers"] < 1:
            raise UserError("MODEL.MASK_FORMER.DEC_LAYERS counts the prediction on the initial queries. Set 1 or more.")
        return {**arguments, "dec_layers": arguments["dec_layers"] - 1}

    def classify(self, state: Tensor, mask_logits: Tensor, mask_features: Tensor, last: bool) -> Tensor | None:
        """Class logits (B, Q, K + 1) of one prediction, "no object" last; may be None except for the ``last`` layer.

        ``state`` (B, Q, C) are the queries after ``decoder_norm``, ``mask_logits`` (B, Q, h, w) their masks;
        ``mask_features`` are (B, mask_dim, h, w).
        """
        return self.class_embed(state)

    def forward(self, x: list[Tensor], mask_features: Tensor, mask: Tensor | None = None) -> dict:
        """Predict classes and masks of all queries.

        ``x`` are feature levels (B, in_channels, h_l, w_l), coarsest first; ``mask_features`` (B, mask_dim, h, w) have
        the stride of the masks; ``mask`` is ignored, so padding is treated as image.

        Returns ``pred_logits`` (B, Q, K + 1), ``pred_masks`` (B, Q, h, w) logits and their factors ``mask_kernels``
        (B, Q, mask_dim) and ``mask_features``, ``pred_embed`` (B, Q, C), the normalised queries that were classified,
        and ``aux_outputs``: for the initial queries and each layer but the last a dict with ``pred_logits``,
        ``pred_masks`` and ``mask_kernels``; empty without deep supervision and in evaluation.
        """
        if len(x) != NUM_LEVELS:
            raise ValueError(f"{type(self).__name__} expects {NUM_LEVELS} feature levels, not {len(x)}")
        keys, memories, level_features = self._prepare_levels(x, mask_features)
        batch = mask_features.shape[0]
        state = self.query_feat.weight.unsqueeze(0).expand(batch, -1, -1)
        positions = self.query_embed.weight
        embeds, all_kernels = [], []
        for i in range(len(self.transformer_ffn_layers)):
            level = i % NUM_LEVELS
            embed = self.decoder_norm(state)
            kernels = self.mask_embed(embed)
            embeds.append(embed)
            all_kernels.append(kernels)
            masked = self.attention_mask(kernels, level_features[level])
            # A query with an empty mask attends everywhere.
            allowed = ~masked | masked.all(dim=-1, keepdim=True)
            state = self.transformer_cross_attention_layers[i](
                state, positions, keys[level], memories[level], allowed.unsqueeze(1)
            )
            state = self.transformer_self_attention_layers[i](state, positions)
            state = self.transformer_ffn_layers[i](state)
        embed = self.decoder_norm(state)
        embeds.append(embed)
        all_kernels.append(self.mask_embed(embed))
        first = 0 if self.training and self.deep_supervision else -1
        *auxiliary, last = self._predict(embeds[first:], all_kernels[first:], mask_features)
        return {**last, "pred_embed": embeds[-1], "mask_features": mask_features, "aux_outputs": auxiliary}

    def _prepare_levels(
        self, x: list[Tensor], mask_features: Tensor
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Keys and values (B, h_l * w_l, C), and the mask features (B, mask_dim, h_l * w_l) of each level."""
        keys, memories, level_features = [], [], []
        for level, feature in enumerate(x):
            memory = self.input_proj[level](feature).flatten(2).transpose(1, 2) + self.level_embed.weight[level]
            height, width = feature.shape[-2:]
            keys.append(memory + self.pe_layer.tokens(height, width, memory))
            memories.append(memory)
            # Resizing commutes with the product over channels, so resize here once, not for each mask and layer.
            resized = F.interpolate(mask_features.detach(), (height, width), mode="bilinear", align_corners=False)
            level_features.append(resized.flatten(2))
        return keys, memories, level_features

    @torch.no_grad()
    def attention_mask(self, kernels: Tensor, level_features: Tensor) -> Tensor:
        """True where the masks of ``kernels`` (B, Q, mask_dim) are below one half: (B, Q, h_l * w_l) bool."""
        return torch.bmm(kernels, level_features.to(kernels.dtype)) < 0

    def _predict(
        self, embeds: list[Tensor], kernels: list[Tensor], mask_features: Tensor
    ) -> list[dict[str, Tensor | None]]:
        # One product for all predictions takes half the time of ten.
        masks = self.draw(torch.cat(kernels, dim=1), mask_features).unflatten(1, (len(kernels), -1)).unbind(1)
        predictions, number = [], len(masks) - 1
        for i, (embed, own, mask_logits) in enumerate(zip(embeds, kernels, masks, strict=True)):
            logits = self.classify(embed, mask_logits, mask_features, last=i == number)
            predictions.append({"pred_logits": logits, "pred_masks": mask_logits, "mask_kernels": own})
        return predictions

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        # The first published checkpoints call the initial queries static_query. The key decides, not the version
        # metadata, which are lost when a checkpoint is saved again.
        for key in [k for k in state_dict if k.startswith(prefix + "static_query")]:
            state_dict[key.replace("static_query", "query_feat", 1)] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
