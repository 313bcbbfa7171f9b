"""A method of one's own for the mini benchmark: the classifier of an unseen class, predicted in closed form.

Ridge regression writes each unseen class vector as a weighted sum of the seen ones; the same sum of the seen classes'
classifier rows becomes its row. Nothing is trained: the shared pretraining's weights are evaluated.
"""

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor

from PADing.errors import UserError
from PADing.meta_arch import MaskFormer
from PADing.meta_arch.class_vectors import load_vectors, unseen_classes


def add_config(cfg: CfgNode) -> None:
    """Called for every module that a config names under PLUGINS."""
    cfg.MODEL.RIDGE = CfgNode()
    cfg.MODEL.RIDGE.PENALTY = 0.01  # of 0.001, 0.01, 0.1, 1: chosen on the tuning split


@META_ARCH_REGISTRY.register()
class RidgeClassifier(MaskFormer):
    """Mask2Former whose unseen classes borrow the classifier rows of seen ones.

    Args:
        vectors: (C, e) class vectors in the order of the outputs.
        unseen: positions of the unseen classes among them.
        penalty: of the regression; the larger, the smaller the weights.
        common: see ``SegmenterBase``.
    """

    @configurable
    def __init__(self, *, vectors: Tensor, unseen: list[int], penalty: float, **common) -> None:
        super().__init__(**common)
        self.unseen, self.seen = unseen, [i for i in range(len(vectors)) if i not in unseen]
        seen_vectors, unseen_vectors = vectors[self.seen], vectors[unseen]
        gram = seen_vectors @ seen_vectors.T + penalty * torch.eye(len(self.seen))
        # (U, S). Not persistent, so the pretraining's weights fit.
        self.register_buffer("mix", torch.linalg.solve(gram, seen_vectors @ unseen_vectors.T).T, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        vectors, _, problem = load_vectors(cfg)
        if vectors is None:
            raise UserError(problem)
        penalty = cfg.MODEL.RIDGE.PENALTY
        return {**super().from_config(cfg), "vectors": vectors, "unseen": unseen_classes(cfg), "penalty": penalty}

    def infer(self, class_logits: Tensor, mask_logits: Tensor, batched_inputs: list[dict], images) -> list[dict]:
        # Logits are linear in the classifier's rows, so a sum of rows is the same sum of logits.
        class_logits = class_logits.clone()
        class_logits[..., self.unseen] = class_logits[..., self.seen] @ self.mix.T
        return super().infer(class_logits, mask_logits, batched_inputs, images)
