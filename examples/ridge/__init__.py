"""An example of your own method for the mini benchmark: the classifier of an unseen class, predicted in closed form.

Ridge regression writes each unseen class embedding as a weighted sum of the seen ones. The same weights sum the seen
classes' classifier rows to the row of the unseen class. Nothing is trained: it uses the shared pretraining's weights.
"""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor

from PADing.meta_arch import MaskFormer
from PADing.meta_arch.class_embeddings import ClassEmbeddings, output_classes


def add_config(cfg: CfgNode) -> None:
    """Add this method's config keys. Called for every module that a config names under PLUGINS."""
    cfg.MODEL.RIDGE = CfgNode()
    cfg.MODEL.RIDGE.PENALTY = 0.01  # of 0.001, 0.01, 0.1, 1: chosen on the tuning split


@META_ARCH_REGISTRY.register()
class RidgeClassifier(MaskFormer):
    """Mask2Former that makes the classifier rows of unseen classes from those of seen classes.

    Args:
        embeddings: (C, e) class embeddings in the order of the outputs.
        unseen: positions of the unseen classes among them.
        penalty: of the regression; a larger penalty makes the weights smaller.
        common: see ``SegmenterBase``.
    """

    mix: Tensor  # (U, S)

    @configurable
    def __init__(self, *, embeddings: Tensor, unseen: Sequence[int], penalty: float, **common) -> None:
        super().__init__(**common)
        self.unseen, self.seen = list(unseen), [i for i in range(len(embeddings)) if i not in unseen]
        seen_ones, unseen_ones = embeddings[self.seen], embeddings[self.unseen]
        gram = seen_ones @ seen_ones.T + penalty * torch.eye(len(self.seen))
        # Not in checkpoints, so that the pretraining's weights fit.
        self.register_buffer("mix", torch.linalg.solve(gram, seen_ones @ unseen_ones.T).T, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """The arguments of the host and of the regression."""
        space = output_classes(cfg)
        embeddings = ClassEmbeddings.of_config(cfg, space).of(space.vocabulary)
        own = {"embeddings": embeddings, "unseen": space.unseen_outputs, "penalty": cfg.MODEL.RIDGE.PENALTY}
        return {**super().from_config(cfg), **own}

    def predict(self, images) -> tuple[Tensor, Tensor]:
        """Replace the unseen classes' logits."""
        class_logits, mask_logits = super().predict(images)
        # Logits are linear in the classifier's rows: a weighted sum of rows gives the same sum of logits.
        class_logits = class_logits.clone()
        class_logits[..., self.unseen] = class_logits[..., self.seen] @ self.mix.T
        return class_logits, mask_logits
