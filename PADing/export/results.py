"""Results of a batch as tensors of fixed rank and without loops, equal to those of ``PADing.meta_arch.results``.

Class logits are (B, Q, K + 1) with "no object" last, mask logits (B, Q, H, W).
"""

from collections.abc import Collection
from fractions import Fraction

import torch
from torch import Tensor

from PADing.meta_arch.instance_rule import InstanceRule
from PADing.meta_arch.results import tight_boxes


def semantic_scores(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """Scores (B, K, H, W), see ``PADing.meta_arch.results.semantic_scores``."""
    prob = class_logits.softmax(-1)[..., :-1].transpose(1, 2)
    batch, _, height, width = mask_logits.shape
    return torch.bmm(prob, mask_logits.sigmoid().flatten(2)).view(batch, prob.shape[1], height, width)


def instances(
    class_logits: Tensor, mask_logits: Tensor, rule: InstanceRule, boxes_from_masks: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Instances by falling score: see ``PADing.meta_arch.results.make_instances``.

    Returns:
        scores (B, n) float; labels (B, n) int64, -1 with score 0 where the model's choice is no instance (stuff); boxes
        (B, n, 4) float XYXY; masks (B, n, H, W) bool.
    """
    prob, queries, labels = rule.pairs(class_logits)
    inside = mask_logits > 0
    area = inside.to(prob.dtype).sum((2, 3))
    quality = (mask_logits.sigmoid() * inside).sum((2, 3)) / (area + 1e-6)
    scores = prob * quality.gather(1, queries)
    kept = rule.is_kept(labels)
    scores, order = torch.where(kept, scores, 0.0).topk(prob.shape[1])
    labels, queries = torch.where(kept, labels, -1).gather(1, order), queries.gather(1, order)
    if boxes_from_masks:
        in_row, in_column = inside.any(3).flatten(0, 1), inside.any(2).flatten(0, 1)
        boxes = tight_boxes(in_row, in_column).view(inside.shape[0], inside.shape[1], 4)
        boxes = boxes.gather(1, queries.unsqueeze(2).expand(-1, -1, 4))
    else:
        boxes = scores.new_zeros(scores.shape[0], scores.shape[1], 4)
    image = torch.arange(inside.shape[0], device=inside.device).unsqueeze(1)
    return scores, labels, boxes, inside[image, queries]


def panoptic(
    class_logits: Tensor,
    mask_logits: Tensor,
    things: Collection[int],
    object_mask_threshold: float,
    overlap_threshold: float,
) -> tuple[Tensor, Tensor]:
    """Segments, see ``PADing.meta_arch.results.panoptic_map``; its loop over queries becomes comparisons of all pairs.

    Returns:
        map (B, H, W) int32 of segment ids 1, 2, ..., 0 for none; labels (B, Q) int64, at ``i`` that of segment
        ``i + 1``, -1 where there is none.
    """
    scores, labels = class_logits.softmax(-1).max(-1)
    confident = (labels != class_logits.shape[-1] - 1) & (scores > object_mask_threshold)
    soft = mask_logits.sigmoid()
    # Every product is at least 0, so a query that is not confident owns a pixel only if none is.
    owner = torch.where(confident[..., None, None], scores[..., None, None] * soft, -1.0).argmax(1)  # (B, H, W)
    inside = soft >= 0.5
    place = torch.arange(labels.shape[1], device=labels.device)
    owned = owner.unsqueeze(1) == place[:, None, None]
    count, in_mask, kept_pixels = (_pixels(pixels) for pixels in (owned, inside, owned & inside))
    share = Fraction(str(overlap_threshold)).limit_denominator(10**6)
    large = count * share.denominator >= in_mask * share.numerator  # in integers, because division rounds
    valid = confident & (count > 0) & (in_mask > 0) & (kept_pixels > 0) & large
    thing = _one_of(labels, things)
    # A query begins a segment, unless an earlier valid query has the same stuff class.
    same = (labels.unsqueeze(2) == labels.unsqueeze(1)) & valid.unsqueeze(2) & valid.unsqueeze(1)
    earlier = (same & (place[None, :] < place[:, None])).any(2)
    begins = valid & (thing | ~earlier)
    number = begins.long().cumsum(1) * begins
    of_class = (same * number.unsqueeze(1)).amax(2)  # the segment that the class's first query began
    ids = torch.where(thing, number, of_class)
    owner_inside = inside.gather(1, owner.unsqueeze(1))[:, 0]
    segments = ids.gather(1, owner.flatten(1)).view_as(owner)
    begun = number.unsqueeze(1) == place[:, None] + 1  # (B, segment, query)
    segment_labels = (begun * (labels + 1).unsqueeze(1)).sum(2) - 1
    return torch.where(owner_inside, segments, 0).int(), segment_labels


def _pixels(flags: Tensor) -> Tensor:
    return flags.sum((2, 3), dtype=torch.int32).long()


def _one_of(labels: Tensor, wanted: Collection[int]) -> Tensor:
    return (labels.unsqueeze(-1) == torch.tensor(sorted(wanted), dtype=labels.dtype, device=labels.device)).any(-1)
