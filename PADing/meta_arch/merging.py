"""Merges the queries of several views of one image into one set, for panoptic and instance results.

Queries of different views do not correspond by their number: query 7 may be a dog in one view and the sky in its mirror
image. So they are matched by their masks.
"""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

# Two queries are of one object if the IoU of their masks is at least this; two objects cannot both have more than half.
SAME_OBJECT = 0.5
EPSILON = 1e-6  # probabilities are kept so far from 0 and 1, whose logits are infinite


class MergedQueries:
    """Objects that several views show.

    The first view's queries are the first objects. Those of each further view are assigned to objects one to one, so
    that the sum of IoU times agreement of the classes is largest (Hungarian method). Pairs below ``SAME_OBJECT`` are
    parted, and what is left over becomes an object of its own. An object has the mean of its masks. Its class
    probabilities are means over all views, where a view without it says "no object", so what is found in few views gets
    low scores.

    Args:
        views: the number of views that will be added.
        most: the number of objects kept; those that are most surely no object are dropped.
    """

    def __init__(self, views: int, most: int):
        self.views, self.most = views, most
        self._classes: Tensor | None = None  # (M, K + 1) sums over views
        self._masks, self._count = torch.empty(0), torch.empty(0)  # (M, H, W) sums over members, and their number (M,)

    def add(self, classes: Tensor, masks: Tensor) -> None:
        """Add a view: class probabilities (Q, K + 1), mask probabilities (Q, H, W) on the same grid for all views."""
        if self._classes is None:
            self._classes, self._masks, self._count = classes.clone(), masks.clone(), classes.new_ones(len(classes))
            return
        objects, queries = self._pairs(classes, masks)
        self._classes[objects] += classes[queries]
        self._masks[objects] += masks[queries]
        self._count[objects] += 1
        new = torch.ones(len(classes), dtype=torch.bool, device=classes.device)
        new[queries] = False
        self._classes = torch.cat([self._classes, classes[new]])
        self._masks = torch.cat([self._masks, masks[new]])
        self._count = torch.cat([self._count, classes.new_ones(int(new.sum()))])
        if len(self._classes) > self.most:
            keep = self._classes[:, :-1].sum(1).topk(self.most).indices.sort().values
            self._classes, self._masks, self._count = self._classes[keep], self._masks[keep], self._count[keep]

    def result(self) -> tuple[Tensor, Tensor]:
        """Class probabilities (M, K + 1) and mask logits (M, H, W)."""
        assert self._classes is not None
        classes = self._classes / self.views
        classes[:, -1] += 1 - self._count / self.views
        masks = (self._masks / self._count[:, None, None]).clamp_(EPSILON, 1 - EPSILON)
        return classes, masks.logit_()

    def _pairs(self, classes: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of objects and of the queries that belong to them."""
        assert self._classes is not None
        iou = mask_iou(self._masks > 0.5 * self._count[:, None, None], masks > 0.5)
        means = self._classes / self._count[:, None]
        agreement = torch.stack([torch.minimum(mean, classes).sum(1) for mean in means])
        score = (iou * (1 + agreement)).masked_fill(iou < SAME_OBJECT, 0)
        objects, queries = map(torch.from_numpy, linear_sum_assignment(score.cpu().numpy(), maximize=True))
        objects, queries = objects.to(iou.device), queries.to(iou.device)
        same = iou[objects, queries] >= SAME_OBJECT
        return objects[same], queries[same]


def mask_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of all pairs of bool masks: (M, H, W), (Q, H, W) -> (M, Q) float32; 0 if both are empty."""
    a, b = a.flatten(1).float(), b.flatten(1).float()
    both = a @ b.T
    return both / (a.sum(1)[:, None] + b.sum(1)[None] - both).clamp(min=1)
