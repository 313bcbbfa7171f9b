"""The losses of Mask2Former, computed for all predictions of a batch at once."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from detectron2.config import CfgNode, configurable
from detectron2.utils.comm import get_world_size
from torch import Tensor, nn
from torch.nn import functional as F

from PADing.modeling.matcher import Assignment, HungarianMatcher
from PADing.modeling.point_sampling import importance_counts, most_uncertain, point_sample
from PADing.modeling.transfer import to_device
from PADing.modeling.whole_batch import WholeBatch

Targets = list[dict[str, Tensor]]


class Matched(NamedTuple):
    """``A`` predictions of a batch, and the M matched pairs of queries and targets in each of them.

    Pairs are listed image by image. The number of pairs in an image is the same for all predictions.
    """

    predictions: list[dict]  # see SetCriterion.forward
    targets: Targets
    image: Tensor  # (M)
    query: Tensor  # (A, M), ascending in each image
    target: Tensor  # (A, M), index among the image's targets
    counts: list[int]  # pairs of each image


class SetCriterion(nn.Module):
    """Classification, mask and dice losses after matching (Mask2Former, Sec. 3.3 and 3.3.1).

    All predictions (the last one and those for deep supervision) are matched and compared together. Random points are
    drawn before, for one prediction after another, the last one first: for each image the matcher's points, then the
    candidates and random points of the mask loss.

    A subclass adds a loss in :meth:`label_losses`, :meth:`mask_losses` or :meth:`forward`, and its weight in
    :meth:`loss_weights`. A meta-architecture names the subclass as its ``criterion_type``.

    Attributes:
        whole: with gradient accumulation, the whole batch of the update; else None. A loss that is no mean over images
            takes its divisor and its random draws from it, see :class:`WholeBatch`.
        mean_targets: the mean number of targets of the batch's shares, if the caller has counted them (0-dim.); None:
            each process has one share, and the mean is taken over processes.

    State-dict keys: ``empty_weight`` (num_classes + 1), the class weights of the cross-entropy.

    Args:
        num_classes: number of classes without "no object".
        matcher: assigns queries to targets.
        weight_dict: factor of each loss by name; the caller applies it.
        eos_coef: class weight of "no object".
        losses: any of "labels", "masks".
        num_points: points per mask.
        oversample_ratio: candidates per point.
        importance_sample_ratio: share of the points that are the most uncertain candidates; the others are random.

    Raises:
        ValueError: an unknown loss.
    """

    empty_weight: Tensor
    whole: WholeBatch | None = None
    mean_targets: Tensor | None = None

    @configurable
    def __init__(
        self,
        num_classes: int,
        matcher: HungarianMatcher,
        weight_dict: dict[str, float],
        eos_coef: float,
        losses: Sequence[str],
        num_points: int,
        oversample_ratio: float,
        importance_sample_ratio: float,
    ) -> None:
        super().__init__()
        unknown = set(losses) - {"labels", "masks"}
        if unknown:
            raise ValueError(f"SetCriterion has the losses 'labels' and 'masks', not {sorted(unknown)}")
        self.num_classes, self.matcher, self.weight_dict = num_classes, matcher, weight_dict
        self.eos_coef, self.losses, self.num_points = eos_coef, list(losses), num_points
        self.candidates, self.random_points = importance_counts(num_points, oversample_ratio, importance_sample_ratio)
        weight = torch.ones(num_classes + 1)
        weight[-1] = eos_coef
        self.register_buffer("empty_weight", weight)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Arguments from ``MODEL.MASK_FORMER``; with deep supervision, weights for every prediction."""
        node, weights = cfg.MODEL.MASK_FORMER, cls.loss_weights(cfg)
        if node.DEEP_SUPERVISION:
            weights |= {f"{name}_{i}": w for i in range(node.DEC_LAYERS - 1) for name, w in weights.items()}
        return {
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "matcher": HungarianMatcher(
                node.CLASS_WEIGHT, node.MASK_WEIGHT, node.DICE_WEIGHT, num_points=node.TRAIN_NUM_POINTS
            ),
            "weight_dict": weights,
            "eos_coef": node.NO_OBJECT_WEIGHT,
            "losses": ["labels", "masks"],
            "num_points": node.TRAIN_NUM_POINTS,
            "oversample_ratio": node.OVERSAMPLE_RATIO,
            "importance_sample_ratio": node.IMPORTANCE_SAMPLE_RATIO,
        }

    @classmethod
    def loss_weights(cls, cfg: CfgNode) -> dict[str, float]:
        """The weight of every loss by name, without the suffixes of ``aux_outputs``."""
        node = cfg.MODEL.MASK_FORMER
        return {"loss_ce": node.CLASS_WEIGHT, "loss_mask": node.MASK_WEIGHT, "loss_dice": node.DICE_WEIGHT}

    def forward(self, outputs: dict, targets: Targets) -> dict[str, Tensor]:
        """Scalars ``loss_ce``, ``loss_mask``, ``loss_dice``, without the factors of ``weight_dict``.

        Args:
            outputs: ``pred_logits`` (B, Q, K + 1), ``pred_masks`` (B, Q, h, w), and possibly ``aux_outputs``, a list of
                such dicts, whose losses end in ``_0``, ``_1``, ... If all have ``mask_kernels`` (B, Q, C) and
                ``outputs`` has ``mask_features`` (B, C, h, w), whose products are the masks, then the gradient of the
                masks goes through the matched kernels alone, which takes a fraction of the time.
            targets: for each image ``labels`` (n) int64 and ``masks`` (n, H, W) bool or 0 and 1.
        """
        predictions = [outputs, *outputs.get("aux_outputs", ())]
        device, queries = outputs["pred_masks"].device, outputs["pred_masks"].shape[1]
        whole = self.whole or WholeBatch([target["labels"] for target in targets])
        of_matcher, drawn = whole.once("points", lambda: self._draw_points(whole, len(predictions), queries, device))
        whole.forget("points", len(targets))  # candidates of masks are large
        images, pairs = whole.images(len(targets)), whole.pairs(len(targets), queries)
        matched = _pairs(predictions, targets, self.matcher.match(predictions, targets, of_matcher[:, images]))
        drawn = [[points[pairs] for points in of_masks] for of_masks in drawn]
        masks = _matched_masks(matched) if "masks" in self.losses else None

        result: dict[str, Tensor] = {}
        with torch.autocast(device_type=device.type, enabled=False):
            if "labels" in self.losses:
                result |= self.label_losses(predictions, self._target_classes(matched))
            if "masks" in self.losses:
                count = sum(map(len, whole.labels))
                num_masks = whole.once("masks", lambda: self._mean_targets(count, device)) / whole.parts
                assert masks is not None
                result |= self.mask_losses(matched, *self._at_points(masks.float(), matched, drawn), num_masks)
        whole.done(len(targets))
        endings = ["", *(f"_{i}" for i in range(len(predictions) - 1))]
        return {
            name + ending: value
            for name, values in result.items()
            for ending, value in zip(endings, values.unbind(), strict=True)
        }

    @torch.no_grad()
    def match(self, outputs: dict, targets: Targets) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Match the last prediction, without losses, for methods that train on matched queries.

        Returns the class of every query (B, Q) int64, ``num_classes`` if unmatched; the classes of matched queries (M)
        int64, by image, then by query; and their (image indices, query indices), (M) each.
        """
        whole, device = self.whole or WholeBatch([target["labels"] for target in targets]), outputs["pred_masks"].device
        points = whole.once("points", lambda: self.matcher.draw_points(len(whole.labels), device))
        own = points[whole.images(len(targets))].unsqueeze(0)
        matched = _pairs([outputs], targets, self.matcher.match([outputs], targets, own))
        whole.done(len(targets))
        classes, index = self._target_classes(matched)[0], (matched.image, matched.query[0])
        return classes, classes[index], index

    def label_losses(self, predictions: list[dict], classes: Tensor) -> dict[str, Tensor]:
        """Losses of the class scores by name, (A,) for A predictions: weighted mean cross-entropy.

        ``classes`` (A, B, Q) int64 are the target classes of queries, ``num_classes`` if unmatched.
        """
        logits = torch.stack([p["pred_logits"] for p in predictions]).float()  # (A, B, Q, K + 1)
        weight = self.empty_weight.to(logits)
        loss = F.cross_entropy(logits.permute(0, 3, 1, 2), classes, weight, reduction="none")
        return {"loss_ce": loss.flatten(1).sum(1) / self._sum_of_weights(weight, classes)}

    def _sum_of_weights(self, weight: Tensor, classes: Tensor) -> Tensor:
        """The sum of the class weights of all queries: (A,); of the whole batch, if there is one, by micro-batch."""
        if self.whole is None:
            return weight[classes].flatten(1).sum(1)
        queries, total = classes.shape[2], weight.new_zeros(())
        for labels in self.whole.labels:
            of_targets = weight[labels.to(weight.device)]
            # With more targets than queries it is not known yet which are matched, so take their mean weight.
            matched = min(queries, len(labels))
            share = matched / max(len(labels), 1)
            total = total + of_targets.sum() * share + (queries - matched) * weight[-1]
        return (total / self.whole.parts).expand(len(classes))

    def mask_losses(
        self, matched: Matched, logits: Tensor, labels: Tensor, num_masks: float | Tensor
    ) -> dict[str, Tensor]:
        """Losses of the masks by name, (A,) for A predictions: cross-entropy and dice loss at points.

        ``logits`` and ``labels`` (A, M, P) float32 are the predicted and the target mask of each pair at P points. Sums
        over pairs are divided by ``num_masks``, the mean number of targets per process and micro-batch.
        """
        scale = 1 / num_masks
        ce = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(2)
        inside = logits.sigmoid()
        dice = 1 - (2 * (inside * labels).sum(2) + 1) / (inside.sum(2) + labels.sum(2) + 1)
        return {"loss_mask": ce.sum(1) * scale, "loss_dice": dice.sum(1) * scale}

    def _mean_targets(self, count: int, device: torch.device) -> float | Tensor:
        """The mean number of targets per share of the batch, at least one."""
        if self.mean_targets is not None:
            return self.mean_targets.to(device).clamp(min=1)
        return _mean_over_ranks(count, device)

    def _draw_points(
        self, whole: WholeBatch, predictions: int, queries: int, device: torch.device
    ) -> tuple[Tensor, list[list[Tensor]]]:
        """Random points of all images: the matcher's (A, B, P, 2), and candidates and others of each pair's masks."""
        pairs, of_matcher, of_masks = whole.count_pairs(queries), [], []
        for _ in range(predictions):
            of_matcher.append(self.matcher.draw_points(len(whole.labels), device))
            if "masks" in self.losses:
                counts = (self.candidates, self.random_points)
                of_masks.append([torch.rand(pairs, count, 2, device=device) for count in counts])
        return torch.stack(of_matcher), of_masks

    def _target_classes(self, matched: Matched) -> Tensor:
        """The target class of each query of each prediction: (A, B, Q) int64."""
        device = matched.query.device
        labels = [target["labels"].to(device) for target in matched.targets]
        first = to_device(torch.tensor([0, *(len(x) for x in labels[:-1])]).cumsum(0), device)
        shape = (len(matched.predictions), *matched.predictions[0]["pred_logits"].shape[:2])
        classes = torch.full(shape, self.num_classes, dtype=torch.int64, device=device)
        rows = torch.arange(len(classes), device=device).unsqueeze(1)
        classes[rows, matched.image, matched.query] = torch.cat(labels)[first[matched.image] + matched.target]
        return classes

    def _at_points(self, masks: Tensor, matched: Matched, drawn: list[list[Tensor]]) -> tuple[Tensor, Tensor]:
        """Mask logits (A * M, 1, h, w) and the targets' masks at the mask loss's points: (A, M, P) each.

        ``drawn``: candidates and random points of each prediction. It is empty afterwards.
        """
        by_prediction = masks.view(*matched.query.shape, *masks.shape[1:])
        uncertain = self.num_points - self.random_points
        points = masks.new_empty(*matched.query.shape, self.num_points, 2)
        # One prediction after another, because the candidates of all of them fill hundreds of megabytes.
        for own, at in zip(by_prediction.detach(), points, strict=True):
            candidates, at[:, uncertain:] = drawn.pop(0)
            at[:, :uncertain] = most_uncertain(own, candidates, uncertain)
        labels = _labels_at_points(matched, points)
        logits = [point_sample(own, at).squeeze(1) for own, at in zip(by_prediction, points, strict=True)]
        return torch.stack(logits), labels

    def extra_repr(self) -> str:
        """The text in ``print(model)``."""
        return f"num_classes={self.num_classes}, losses={self.losses}, weight_dict={self.weight_dict}"


class SetCriterion_Generator(SetCriterion):  # noqa: N801 (its published name)
    """The published name of a criterion whose call is :meth:`match`; kept for code that imports it."""

    forward = SetCriterion.match  # type: ignore[assignment]  # as in the published code


def _pairs(predictions: list[dict], targets: Targets, matches: list[list[Assignment]]) -> Matched:
    counts = [len(query) for query, _ in matches[0]]
    image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    query = torch.stack([torch.cat([query for query, _ in images]) for images in matches])
    target = torch.stack([torch.cat([target for _, target in images]) for images in matches])
    device = predictions[0]["pred_logits"].device
    numbers = to_device(torch.cat([image[None], query, target]), device)  # one copy
    image, (query, target) = numbers[0], numbers[1:].chunk(2)
    return Matched(predictions, targets, image, query, target, counts)


def _matched_masks(matched: Matched) -> Tensor:
    """Mask logits of the matched queries: (A * M, 1, h, w)."""
    predictions, features = matched.predictions, matched.predictions[0].get("mask_features")
    if features is None or not all("mask_kernels" in p for p in predictions):
        of_queries = zip(predictions, matched.query, strict=True)
        return torch.cat([p["pred_masks"][matched.image, query] for p, query in of_queries]).unsqueeze(1)
    rows = torch.arange(len(predictions), device=matched.query.device).unsqueeze(1)
    kernels = torch.stack([p["mask_kernels"] for p in predictions])[rows, matched.image, matched.query]  # (A, M, C)
    by_image = zip(kernels.split(matched.counts, 1), features.unbind(0), strict=True)
    masks = torch.cat([own @ maps.flatten(1) for own, maps in by_image], dim=1)
    return masks.view(-1, 1, *features.shape[-2:])


@torch.no_grad()
def _labels_at_points(matched: Matched, points: Tensor) -> Tensor:
    """Target masks of all matched pairs at their points (A, M, P, 2): (A, M, P)."""
    by_image = points.split(matched.counts, 1), matched.target.split(matched.counts, 1)
    images = zip(matched.targets, *by_image, strict=True)
    return torch.cat([_labels_of_image(target["masks"], part, to) for target, part, to in images], dim=1)


def _labels_of_image(masks: Tensor, points: Tensor, target: Tensor) -> Tensor:
    """Masks (n, H, W) ``target`` (A, m) at points (A, m, P, 2): (A, m, P).

    Each mask is read once, at the points of all predictions, so that the large masks are not copied.
    """
    predictions, _, count, _ = points.shape
    prediction = torch.arange(predictions, device=points.device).unsqueeze(1)
    # Each target is matched once; with fewer queries than targets, some masks have no points.
    placed = points.new_zeros(len(masks), predictions, count, 2)
    placed[target, prediction] = points
    values = point_sample(masks.to(points).unsqueeze(1), placed.flatten(1, 2))
    return values.view(len(masks), predictions, count)[target, prediction]


def _mean_over_ranks(count: int, device: torch.device) -> float | Tensor:
    """The mean number of targets per process, at least one."""
    if get_world_size() == 1:
        return max(count, 1)
    total = torch.tensor([float(count)], device=device)
    dist.all_reduce(total)
    return (total / get_world_size()).clamp(min=1)
