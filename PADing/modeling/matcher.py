"""Matches queries with annotated segments: the one-to-one assignment with the lowest cost."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.utils.events import get_event_storage
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

from PADing.errors import UserError
from PADing.modeling.point_sampling import point_sample

logger = logging.getLogger(__name__)

PROHIBITIVE = 1e8  # replaces a cost that is not finite; above any real cost, but small enough for exact sums in scipy

Assignment = tuple[Tensor, Tensor]


class HungarianMatcher(nn.Module):
    """Assigns queries to targets by class, mask and dice costs (Mask2Former, Sec. 3.3.1).

    ``cost = cost_class * -softmax(logits)[class] + cost_mask * BCE + cost_dice * dice``, always in float32. The mask
    terms are computed at ``num_points`` = P random points, the same for all masks of an image. UserError if all weights
    are zero or ``num_points`` is below 1.
    """

    def __init__(
        self, cost_class: float = 1, cost_mask: float = 1, cost_dice: float = 1, num_points: int = 12544
    ) -> None:
        super().__init__()
        if not (cost_class or cost_mask or cost_dice):
            raise UserError(
                "CLASS_WEIGHT, MASK_WEIGHT and DICE_WEIGHT of MODEL.MASK_FORMER are all zero: nothing to match by"
            )
        if num_points < 1:
            raise UserError(f"MODEL.MASK_FORMER.TRAIN_NUM_POINTS must be positive, not {num_points}")
        self.cost_class, self.cost_mask, self.cost_dice = cost_class, cost_mask, cost_dice
        self.num_points = num_points

    def draw_points(self, images: int, device: torch.device) -> Tensor:
        """Random points of one prediction: (B, P, 2), drawn image by image."""
        return torch.cat([torch.rand(1, self.num_points, 2, device=device) for _ in range(images)])

    @torch.no_grad()
    def forward(self, outputs: dict[str, Tensor], targets: list[dict[str, Tensor]]) -> list[Assignment]:
        """Match one prediction; for the arguments see :meth:`SetCriterion.forward`.

        Returns for each image (query indices, ascending; target indices), int64 on the CPU, of length min(Q, n).
        """
        points = self.draw_points(len(targets), outputs["pred_masks"].device)
        return self.match([outputs], targets, points.unsqueeze(0))[0]

    @torch.no_grad()
    def match(
        self, predictions: Sequence[dict[str, Tensor]], targets: list[dict[str, Tensor]], points: Tensor
    ) -> list[list[Assignment]]:
        """Match A predictions of the same batch at once, each at its own points (A, B, P, 2); see ``forward``."""
        # One transfer for all predictions and images, because each transfer waits for the device.
        costs = self.costs(predictions, targets, points).cpu().numpy()
        bad = ~np.isfinite(costs)
        if bad.any():
            _check_classes(predictions, targets)
            message = (
                "Matching costs%s are not finite (%d of %d): training has diverged, or float16 has overflowed. "
                "They are replaced by a very large cost."
            )
            logger.warning(message, _iteration(), bad.sum(), bad.size)
            costs = np.where(bad, PROHIBITIVE, costs)
        counts = [len(target["labels"]) for target in targets]
        pairs = [[linear_sum_assignment(c[:, :count]) for c, count in zip(each, counts, strict=True)] for each in costs]
        return [[(torch.from_numpy(q), torch.from_numpy(t)) for q, t in images] for images in pairs]

    @torch.no_grad()
    def costs(
        self, predictions: Sequence[dict[str, Tensor]], targets: list[dict[str, Tensor]], points: Tensor
    ) -> Tensor:
        """Costs of all pairs: (A, B, Q, max n) float32; columns after an image's last target are meaningless.

        Those of a target whose class the model does not know are NaN.
        """
        with torch.autocast(device_type=points.device.type, enabled=False):
            labels, target = _targets_at_points(targets, points)
            cost = self._mask_costs(predictions, target, points)
            probability = torch.stack([p["pred_logits"] for p in predictions]).float().softmax(-1)
            # On a GPU, an index out of range ends the process without a clear message, and asking for the largest label
            # here would wait for the device.
            unknown = (labels < 0) | (labels >= probability.shape[3] - 1)
            columns = labels.masked_fill(unknown, 0)[None, :, None].expand(*cost.shape[:2], cost.shape[2], -1)
            cost = cost - self.cost_class * probability.gather(3, columns)
            return cost.masked_fill(unknown[:, None], torch.nan)

    def _mask_costs(self, predictions: Sequence[dict[str, Tensor]], target: Tensor, points: Tensor) -> Tensor:
        costs = []
        # One prediction after another, because the numbers of all ten do not fit into a processor's cache.
        for prediction, at, labels in zip(predictions, points, target, strict=True):
            logits = point_sample(prediction["pred_masks"].float(), at)  # (B, Q, P)
            columns = labels.transpose(1, 2)
            # For t in {0, 1} or between, BCE(x, t) = softplus(x) - x t.
            bce = (F.softplus(logits).sum(2, keepdim=True) - logits @ columns) / logits.shape[2]
            inside = logits.sigmoid_()
            areas = inside.sum(2, keepdim=True) + labels.sum(2).unsqueeze(1)
            dice = 1 - (2 * (inside @ columns) + 1) / (areas + 1)
            costs.append(self.cost_mask * bce + self.cost_dice * dice)
        return torch.stack(costs)

    def extra_repr(self) -> str:
        """The text in ``print(model)``."""
        costs = f"cost_class={self.cost_class}, cost_mask={self.cost_mask}, cost_dice={self.cost_dice}"
        return f"{costs}, num_points={self.num_points}"


def _check_classes(predictions: Sequence[dict[str, Tensor]], targets: list[dict[str, Tensor]]) -> None:
    """UserError if a target has a class that the model does not know."""
    classes = predictions[0]["pred_logits"].shape[-1] - 1
    labels = torch.cat([target["labels"] for target in targets])
    unknown = labels[(labels < 0) | (labels >= classes)]
    if len(unknown):
        raise UserError(
            f"An annotation has class {int(unknown.max())}, but the model knows classes 0 to {classes - 1}. Set "
            "MODEL.SEM_SEG_HEAD.NUM_CLASSES to at least the number of classes in DATASETS.TRAIN."
        )


def _targets_at_points(targets: list[dict[str, Tensor]], points: Tensor) -> tuple[Tensor, Tensor]:
    """Labels (B, max n) and masks at the points (A, B, max n, P), filled up with zeros."""
    predictions, images, count = points.shape[:3]
    longest = max((len(target["labels"]) for target in targets), default=0)
    labels = torch.zeros(images, longest, dtype=torch.int64, device=points.device)
    values = points.new_zeros(predictions, images, longest, count)
    for i, target in enumerate(targets):
        n = len(target["labels"])
        if n:
            labels[i, :n] = target["labels"]
            at = points[:, i].reshape(1, predictions * count, 2)
            sampled = point_sample(target["masks"].to(points)[None], at)[0]
            values[:, i, :n] = sampled.view(n, predictions, count).transpose(0, 1)
    return labels, values


def _iteration() -> str:
    try:
        return f" of iteration {get_event_storage().iter}"
    except AssertionError:  # there is no training
        return ""
