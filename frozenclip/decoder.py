"""Mask2Former's decoder with a classifier by text embeddings: FC-CLIP's classifier of the classes of the training."""

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn
from torch.nn import functional as F

from frozenclip.class_table import ClassTable
from frozenclip.classes import evaluation_table, training_table
from frozenclip.encoder import FIRST_SCALE
from frozenclip.pooling import mean_pool
from frozenclip.text import clip_text
from PADing.meta_arch.class_embeddings import ClassEmbeddings
from PADing.modeling import TRANSFORMER_DECODER_REGISTRY, MultiScaleMaskedTransformerDecoder
from PADing.modeling.layers import MLP

LARGEST_SCALE = 100.0  # of cosines, as in CLIP's training


@TRANSFORMER_DECODER_REGISTRY.register()
class MultiScaleMaskedCLIPDecoder(MultiScaleMaskedTransformerDecoder):
    """Scores a class by the cosine of the projected query with the class's text embedding (FC-CLIP, Sec. 3.3, Eq. 2).

    The projected vector is a perceptron's of the query feature plus, with ``pools``, the mean mask feature inside the
    query's mask. "No object" is a learned vector among the text embeddings. All cosines have one learned factor. In
    training, classes without training images do not compete.

    State-dict keys in place of ``class_embed``: ``class_projection``, ``pool_projection``, ``void_embed (1, e)``,
    ``logit_scale``. Text embeddings are not saved.

    Args:
        training_classes, test_classes: the classes in training and in evaluation, in the order of the logits.
        embed_dim: the number of dimensions e of text embeddings.
        pools: add the mean mask feature.
        text: the text embeddings of further classes, by name.
        base: see the base class, also for ``in_channels`` and ``mask_classification``.
    """

    @configurable
    def __init__(
        self,
        in_channels: int,
        mask_classification: bool = True,
        *,
        training_classes: ClassTable,
        test_classes: ClassTable,
        embed_dim: int,
        pools: bool,
        text: ClassEmbeddings,
        **base,
    ) -> None:
        super().__init__(in_channels, mask_classification, **base)
        width = base["hidden_dim"]
        self.class_projection = MLP(width, width, embed_dim, 3)
        self.pool_projection: nn.Module | None = None
        if pools:
            self.pool_projection = nn.Sequential(nn.LayerNorm(base["mask_dim"]), nn.Linear(base["mask_dim"], width))
        self.void_embed = nn.Embedding(1, embed_dim)
        nn.init.normal_(self.void_embed.weight, std=embed_dim**-0.5)
        self.logit_scale = nn.Parameter(torch.tensor(FIRST_SCALE))
        self.training_classes, self.test_classes, self.text = training_classes, test_classes, text

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int, mask_classification: bool) -> dict:
        """The base's arguments and this class's own; the classes of the first evaluation set are the test classes."""
        text = clip_text(cfg)
        return {
            **super().from_config(cfg, in_channels, mask_classification),
            "training_classes": training_table(cfg, text),
            "test_classes": evaluation_table(cfg, text, cfg.DATASETS.TEST[0] if cfg.DATASETS.TEST else ""),
            "embed_dim": text.width,
            "text": text,
            "pools": cfg.MODEL.FROZENCLIP.POOL_MASK_FEATURES,
        }

    def add_class_head(self, hidden_dim: int, num_classes: int) -> None:
        """Do nothing: the classifier is created last, when its sizes are known."""

    def classify(self, state: Tensor, mask_logits: Tensor, mask_features: Tensor, last: bool) -> Tensor:
        """Class logits (B, Q, K + 1) float32, "no object" last; arguments as in the base class."""
        if self.pool_projection is not None:
            with torch.no_grad():
                inside = (mask_logits > 0).to(mask_features)
            state = state + self.pool_projection(mean_pool(mask_features.float(), inside.float()))
        vectors = self.class_projection(state)
        classes = self.training_classes if self.training else self.test_classes
        # A half-precision product would round logits near 100 to steps of 0.06.
        with torch.autocast(device_type=state.device.type, enabled=False):
            vectors = F.normalize(vectors.float(), dim=-1)
            void = vectors @ F.normalize(self.void_embed.weight.float(), dim=-1).T
            cosines = torch.cat([classes.cosines(vectors), void], dim=-1)
            logits = self.logit_scale.exp().clamp(max=LARGEST_SCALE) * cosines
            if self.training:  # after the product, whose gradient would be infinite times 0
                logits = logits.masked_fill(F.pad(~classes.seen, (0, 1)), float("-inf"))
            return logits
