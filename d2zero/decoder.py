"""Mask2Former's decoder with D2Zero's input-conditional classifier and image-adaptive background."""

import math
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn
from torch.nn import functional as F

from d2zero.protocol import candidates_of, own_test_metadata, shows_all_embeddings, training_classes
from PADing.class_space import ClassSpace
from PADing.errors import UserError
from PADing.meta_arch.class_embeddings import ClassEmbeddings
from PADing.modeling import (
    TRANSFORMER_DECODER_REGISTRY,
    MultiScaleMaskedTransformerDecoder,
    TransformerDecoder,
    TransformerDecoderLayer,
)

TEMPERATURE = 0.01  # of training; frozen


@TRANSFORMER_DECODER_REGISTRY.register()
class MultiScaleMaskedD2ZeroDecoder(MultiScaleMaskedTransformerDecoder):
    """Classifies queries by their cosine similarity to class embeddings that attend to the image's queries.

    State-dict keys besides the base class's, in place of ``class_embed``: ``logit_scale (1)``, ``fc_semantic``,
    ``transformer`` (the classifier), ``text_projection``, ``text_projection_2``. Class embeddings are not saved. With
    ``INPUT_CONDITIONAL False`` there is no ``transformer``; with a learned background, ``background_embed`` (1, D)
    replaces ``text_projection_2``.

    Args:
        class_embeddings: of all classes.
        train_classes: names of the K classes in training, in the order of the logits.
        test_classes: the same for evaluation; see :meth:`set_test_classes`.
        layers, dropout: of the classifier.
        d2zero: the config's ``MODEL.D2ZERO``.
        base: see the base class, also for ``in_channels`` and ``mask_classification``.
    """

    text_features: Tensor
    text_features_test: Tensor

    @configurable
    def __init__(
        self,
        in_channels: int,
        mask_classification: bool = True,
        *,
        class_embeddings: ClassEmbeddings,
        train_classes: Sequence[str],
        test_classes: Sequence[str],
        layers: int,
        dropout: float,
        d2zero: CfgNode,
        **base,
    ) -> None:
        super().__init__(in_channels, mask_classification, **base)
        semantic_dim, heads, width = d2zero.SEMANTIC_DIM, base["nheads"], base["dim_feedforward"]
        self.background_per_image, self.class_embeddings = d2zero.BACKGROUND_PER_IMAGE, class_embeddings
        self.logit_scale = nn.Parameter(torch.tensor([math.log(1 / TEMPERATURE)]), requires_grad=False)
        self.fc_semantic = nn.Linear(base["hidden_dim"], semantic_dim)
        self.transformer: TransformerDecoder | None = None
        self.text_projection_2: nn.Linear | None = None
        self.background_embed: nn.Embedding | None = None
        if d2zero.INPUT_CONDITIONAL:
            self.transformer = TransformerDecoder(TransformerDecoderLayer(semantic_dim, heads, width, dropout), layers)
        self.text_projection = nn.Linear(class_embeddings.width, semantic_dim)
        if d2zero.BACKGROUND == "image":
            self.text_projection_2 = nn.Linear(base["mask_dim"], semantic_dim)
        else:
            # An nn.Embedding, so that optimizers apply WEIGHT_DECAY_EMBED.
            self.background_embed = nn.Embedding(1, semantic_dim)
        self.register_buffer("text_features", class_embeddings.of(train_classes), persistent=False)
        self.register_buffer("text_features_test", class_embeddings.of(test_classes), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int, mask_classification: bool) -> dict:
        """The base's arguments and D2Zero's own; reads the class embeddings once for the whole model."""
        node, d2zero = cfg.MODEL.MASK_FORMER, cfg.MODEL.D2ZERO
        if d2zero.BACKGROUND not in ("image", "learned"):
            raise UserError(f"MODEL.D2ZERO.BACKGROUND is {d2zero.BACKGROUND!r}, but must be image or learned.")
        seen, unseen = training_classes(cfg)
        return {
            **super().from_config(cfg, in_channels, mask_classification),
            # The unseen-constrained loss also scores the unseen classes in training.
            "train_classes": seen + unseen if d2zero.UNSEEN_LOSS_WEIGHT else seen,
            "test_classes": candidates_of(own_test_metadata(cfg), shows_all_embeddings(cfg)).names,
            "class_embeddings": ClassEmbeddings.of_config(cfg, ClassSpace.of_config(cfg)),
            "layers": node.TRANS_NUM_LAYER,
            "dropout": node.TRANS_DROP_OUT_RATE,
            "d2zero": d2zero,
        }

    def set_test_classes(self, names: Sequence[str]) -> None:
        """Set the classes of the evaluation; UserError if some have no embedding."""
        self.text_features_test = self.class_embeddings.of(names).to(self.text_features)

    def add_class_head(self, hidden_dim: int, num_classes: int) -> None:
        """Do nothing: as in published checkpoints, the classifier is created last."""

    def classify(self, state: Tensor, mask_logits: Tensor, mask_features: Tensor, last: bool) -> Tensor:
        """Class logits (B, Q, K + 1) float32, background last; arguments as in the base class."""
        queries = F.normalize(self.fc_semantic(state).float(), dim=-1)
        classes = self.text_projection(self.text_features if self.training else self.text_features_test)
        if self.text_projection_2 is not None:
            background = self.text_projection_2(self.background(mask_logits, mask_features)).unsqueeze(1)
        else:
            assert self.background_embed is not None
            background = self.background_embed.weight.to(classes).expand(state.shape[0], 1, -1)
        tokens = torch.cat([classes.expand(state.shape[0], -1, -1), background], dim=1)
        centres = F.normalize(tokens.float(), dim=-1)
        if self.transformer is not None:
            # Class centres of this image: classes attend to each other, then to the queries.
            centres = self.transformer(centres.transpose(0, 1), queries.transpose(0, 1))[-1].transpose(0, 1)
        # A half-precision product would round logits near 100 to steps of 0.06.
        with torch.autocast(device_type=state.device.type, enabled=False):
            centres = F.normalize(centres.float(), dim=-1)
            return self.logit_scale.exp() * queries @ centres.transpose(1, 2)

    @torch.no_grad()
    def background(self, mask_logits: Tensor, mask_features: Tensor) -> Tensor:
        """The background prototype (D2Zero, image-adaptive background): the mean mask feature outside all masks.

        Padding is background. If no image of the batch has background, every pixel is background; with
        ``background_per_image`` this holds for each image separately.

        Args:
            mask_logits: (B, Q, h, w).
            mask_features: (B, C, h, w).

        Returns:
            (B, C) float32 of unit length; zero for an image without background if another image has some.
        """
        background = mask_logits.amax(dim=1) <= 0  # (B, h, w)
        exists = background.flatten(1).any(dim=1).view(-1, 1, 1) if self.background_per_image else background.any()
        background = (background | ~exists).flatten(1)
        with torch.autocast(device_type=mask_logits.device.type, enabled=False):
            features = mask_features.float().flatten(2)
            mean = torch.bmm(features, background.to(features).unsqueeze(2))[..., 0] / features.shape[2]
            return F.normalize(mean, dim=1, eps=1e-5)
