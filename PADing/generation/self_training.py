"""Self-training: a first model's predictions of unseen classes become labels where nothing is annotated."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from PADing.errors import UserError


class Teacher(NamedTuple):
    """The classifier of a first model, and the thresholds of its predictions; see :func:`pseudo_labels`."""

    weight: Tensor  # (C + 1, d)
    bias: Tensor  # (C + 1,)
    score: float
    max_overlap: float

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], student: nn.Linear, score: float, max_overlap: float) -> "Teacher":
        """Take ``new_fc`` from a first model's state dict; UserError if it does not fit the ``student``."""
        weight, bias = (weights.get(f"new_fc.{part}") for part in ("weight", "bias"))
        if weight is None or bias is None or weight.shape != student.weight.shape:
            found = "none" if weight is None else tuple(weight.shape)
            raise UserError(
                "MODEL.MASK_FORMER.SELF_TRAINING.WEIGHTS must be a trained PADing of the same classes: its classifier "
                f"new_fc.weight is {found}, but {tuple(student.weight.shape)} is needed."
            )
        return cls(weight.to(student.weight.device), bias.to(student.bias.device), score, max_overlap)

    def relabel(self, classes: Tensor, outputs: dict[str, Tensor], targets: Sequence[dict], unseen: Tensor) -> Tensor:
        """``classes`` (B, Q) of queries, with this model's predictions for unmatched queries.

        Args:
            classes: (B, Q) int64, C for unmatched queries.
            outputs: the segmenter's outputs.
            targets: for each image ``masks`` (n, H, W) of all annotated objects.
            unseen: (U,) positions of the unseen classes.
        """
        logits = F.linear(outputs["pred_embed"], self.weight, self.bias)
        annotated = torch.stack([target["masks"].bool().any(0) for target in targets])
        return pseudo_labels(classes, logits, outputs["pred_masks"], annotated, unseen, self.score, self.max_overlap)


@torch.no_grad()
def pseudo_labels(
    target_classes: Tensor,
    teacher_logits: Tensor,
    mask_logits: Tensor,
    annotated: Tensor,
    unseen: Tensor,
    score: float,
    max_overlap: float,
) -> Tensor:
    """Label unmatched queries with the unseen classes that the first model predicts with confidence (self-training).

    A query gets a pseudo label if it is "no object", the first model's most probable class (of all, with "no object")
    is unseen with a probability of at least ``score``, and at most the share ``max_overlap`` of its mask is on
    annotated pixels.

    Args:
        target_classes: (B, Q) int64, C for "no object".
        teacher_logits: (B, Q, C + 1), of the first model.
        mask_logits: (B, Q, h, w).
        annotated: (B, H, W) bool, pixels that belong to an annotated object or class.
        unseen: (U,) int64, positions of the unseen classes.
        score: the smallest probability.
        max_overlap: the largest share of a mask on annotated pixels.

    Returns:
        (B, Q) int64, a new tensor.
    """
    covered = covered_share(mask_logits, annotated)
    return confident_labels(target_classes, teacher_logits, covered, unseen, score, max_overlap)


def covered_share(mask_logits: Tensor, annotated: Tensor) -> Tensor:
    """The share of each mask (B, Q, h, w) on annotated pixels (B, H, W) bool: (B, Q); infinite for an empty mask."""
    masks = (mask_logits > 0).flatten(2).float()
    covered = F.interpolate(annotated[:, None].float(), mask_logits.shape[-2:], mode="area")[:, 0].flatten(1)
    area = masks.sum(-1)
    return torch.where(area > 0, torch.einsum("bqp,bp->bq", masks, covered) / area.clamp(min=1), torch.inf)


@torch.no_grad()
def confident_labels(
    target_classes: Tensor, teacher_logits: Tensor, covered: Tensor, unseen: Tensor, score: float, max_overlap: float
) -> Tensor:
    """As :func:`pseudo_labels`, with the share ``covered`` (B, Q) of each mask on annotated pixels."""
    nothing = teacher_logits.shape[-1] - 1
    probability, label = teacher_logits.float().softmax(-1).max(-1)
    sure = (target_classes == nothing) & torch.isin(label, unseen) & (probability >= score)
    return torch.where(sure & (covered <= max_overlap), label, target_classes)
