"""Pseudo labels for a second round: what the first model takes for an unseen class where nothing is annotated."""

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def pseudo_labels(
    target_classes: Tensor,
    teacher_logits: Tensor,
    mask_logits: Tensor,
    annotated: Tensor,
    unseen_index: Tensor,
    score: float,
    max_overlap: float,
) -> Tensor:
    """Give queries that match no annotated object the unseen class that the first model is sure of (self-training).

    A query is relabelled when it is "no object", the teacher's most likely class (of all, "no object" included) is
    unseen with a probability of at least ``score``, and at most the share ``max_overlap`` of its mask lies on annotated
    pixels.

    Args:
        target_classes: (B, Q) int64, C for "no object".
        teacher_logits: (B, Q, C + 1), the first model's answers.
        mask_logits: (B, Q, h, w).
        annotated: (B, H, W) bool, pixels that belong to an annotated object or class.
        unseen_index: (U,) int64.

    Returns:
        (B, Q) int64, a new tensor.
    """
    nothing = teacher_logits.shape[-1] - 1
    probability, label = teacher_logits.float().softmax(-1).max(-1)
    sure = (target_classes == nothing) & torch.isin(label, unseen_index) & (probability >= score)
    masks = (mask_logits > 0).flatten(2).float()
    covered = F.interpolate(annotated[:, None].float(), mask_logits.shape[-2:], mode="area")[:, 0].flatten(1)
    area = masks.sum(-1)
    overlap = torch.einsum("bqp,bp->bq", masks, covered)
    free = (area > 0) & (overlap <= max_overlap * area)
    return torch.where(sure & free, label, target_classes)
