"""Computes the results of one image from its predictions: semantic scores, a panoptic map, instances.

Masks are a tensor (Q, H, W) of logits or :class:`Maps`, which need not fit into memory. Peak memory is that of the
result and of a few strips.
"""

from collections.abc import Collection

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torch.nn import functional as F

from PADing.meta_arch.maps import BinaryMasks, Maps, WeightedMasks, as_maps, fits, held


def semantic_scores(mask_cls: Tensor, mask_pred: Tensor | Maps) -> Tensor | Maps:
    """Masks of all queries, summed with class probabilities: (Q, K + 1), (Q, H, W) logits -> (K, H, W) scores.

    Scores of more than ``maps.LARGEST_TENSOR`` elements are :class:`Maps`, which have ``argmax(dim=0)``.
    """
    return held(WeightedMasks(mask_cls.softmax(-1)[:, :-1], as_maps(mask_pred)))


@torch.no_grad()  # segment ids have no gradient
def panoptic_map(
    mask_cls: Tensor,
    mask_pred: Tensor | Maps,
    things: Collection[int],
    object_mask_threshold: float,
    overlap_threshold: float,
) -> tuple[Tensor, list[dict]]:
    """Assign each pixel to one query (MaskFormer, Sec. 3.4).

    Each pixel goes to the confident query with the largest product of class score and mask. A query keeps its pixels
    with a mask of at least one half. It is dropped if it keeps less than ``overlap_threshold`` of its mask. Stuff
    segments of one class are merged.

    Args:
        mask_cls: (Q, K + 1) logits.
        mask_pred: (Q, H, W) logits.
        things: contiguous ids of thing classes.
        object_mask_threshold: class score above which a query is confident.
        overlap_threshold: share of its mask that a query must keep.

    Returns:
        map (H, W) int32 of segment ids, 0 for none; and a list of segments ``{id, isthing, category_id}`` with
        contiguous category ids.
    """
    scores, labels = mask_cls.softmax(-1).max(-1)
    # Indices, because each use of a mask as an index would wait for a GPU to count.
    keep = ((labels != mask_cls.shape[1] - 1) & (scores > object_mask_threshold)).nonzero()[:, 0]
    masks, scores = as_maps(mask_pred)[keep], scores[keep].view(-1, 1, 1)
    kept = len(masks)
    result = torch.zeros(masks.shape[1:], dtype=torch.int32, device=masks.device)
    if kept == 0:
        return result, []
    # Of each query the pixels in its mask, and those assigned to it, outside and inside its mask.
    original, owned = (
        torch.zeros(kept, device=masks.device),
        torch.zeros(2 * kept, dtype=torch.int64, device=masks.device),
    )
    for rows, logits in masks.strips():
        soft = logits.sigmoid()
        inside = soft >= 0.5
        owner = (scores * soft).max(0).indices  # three times as fast as argmax
        owner_inside = inside.gather(0, owner[None])[0]
        owned += torch.bincount((2 * owner + owner_inside).flatten(), minlength=2 * kept)
        original += pixels(inside)
        result[rows] = torch.where(owner_inside, owner + 1, 0)  # query + 1 until segment ids are known
    remaining = owned[1::2]
    # float64 holds all of these numbers; all in one transfer.
    numbers = torch.stack([x.double() for x in (labels[keep], owned[::2] + remaining, original, remaining)])
    ids, segments = [0], list[dict]()
    stuff_ids: dict[int, int] = {}
    for label, assigned, whole, left in zip(*numbers.tolist(), strict=True):
        label = int(label)
        if min(assigned, whole, left) == 0 or assigned / whole < overlap_threshold:
            ids.append(0)
        elif label in stuff_ids:
            ids.append(stuff_ids[label])
        else:
            segments.append({"id": len(segments) + 1, "isthing": label in things, "category_id": label})
            ids.append(len(segments))
            if label not in things:
                stuff_ids[label] = len(segments)
    table = torch.tensor(ids, dtype=torch.int32, device=masks.device)
    for rows, _ in as_maps(result[None]).strips():
        result[rows] = table[result[rows].long()]
    return result, segments


def best_pairs(prob: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ``k`` most probable (query, class) pairs, unsorted: (..., Q, K) -> scores, queries, classes (..., k)."""
    queries, classes = prob.shape[-2:]
    scores, index = prob.flatten(-2).topk(min(k, queries * classes), sorted=False)
    return scores, index // classes, index % classes


@torch.no_grad()
def make_instances(
    scores: Tensor, queries: Tensor, classes: Tensor, mask_pred: Tensor | Maps, boxes_from_masks: bool = True
) -> Instances:
    """Instances from (query, class) pairs; one query may appear with several classes.

    Args:
        scores, queries, classes: (N,) class probability, query and class of each pair.
        mask_pred: (Q, H, W) logits.
        boxes_from_masks: compute tight boxes; False: zero boxes.

    Returns:
        Instances with ``pred_masks`` (N, H, W) bool, or :class:`BinaryMasks` for more than ``maps.LARGEST_TENSOR``
        elements; ``pred_boxes`` (XYXY); ``scores``, the probability times the mean sigmoid
        inside the mask; ``pred_classes``. Nothing in them carries gradients.
    """
    queries, which = queries.unique(return_inverse=True)  # compute each mask once
    masks = as_maps(mask_pred)[queries]
    count, height, width = masks.shape
    result = Instances((height, width))
    stored = None
    if fits((len(which), height, width)):
        stored = torch.empty(len(which), height, width, dtype=torch.bool, device=masks.device)
    total, area = torch.zeros(2, count, device=masks.device)
    in_row = torch.zeros(count, height, dtype=torch.uint8, device=masks.device)
    in_column = torch.zeros(count, width, dtype=torch.uint8, device=masks.device)
    for rows, logits in masks.strips():
        inside = logits > 0
        total += F.threshold(logits.sigmoid(), 0.5, 0, inplace=True).sum((1, 2))  # probabilities inside the mask
        area += pixels(inside)
        numbers = inside.byte()  # their maximum takes a tenth of the time of ``any``
        in_row[:, rows] = numbers.amax(2)
        in_column |= numbers.amax(1)
        if stored is not None:
            stored[:, rows] = inside[which]
    result.pred_masks = BinaryMasks(masks[which]) if stored is None else stored
    boxes = tight_boxes(in_row, in_column) if boxes_from_masks else scores.new_zeros(count, 4)
    result.pred_boxes = Boxes(boxes[which])
    result.scores = scores * (total / (area + 1e-6))[which]
    result.pred_classes = classes
    return result


def pixels(masks: Tensor) -> Tensor:
    """The number of pixels in each mask: (N, H, W) bool -> (N,) float; half the time of a sum of flags."""
    return masks.byte().sum((1, 2), dtype=torch.int32).float()


def tight_boxes(in_row: Tensor, in_column: Tensor) -> Tensor:
    """Boxes (x0, y0, x1, y1) around masks: (N, 4) float; x1 and y1 are one past the last pixel; zeros if empty.

    ``in_row`` (N, H) and ``in_column`` (N, W), 0 or 1: whether a mask has a pixel in a row or column.
    """
    boxes = []
    for occupied in (in_column, in_row):
        length = occupied.shape[1]
        places = torch.arange(1, length + 1, device=occupied.device)
        end = (occupied * places).amax(1)
        start = length - (occupied * places.flip(0)).amax(1)
        boxes.append(torch.stack([torch.where(end > 0, start, 0), end], dim=1))
    return torch.stack(boxes, dim=2).flatten(1).float()
