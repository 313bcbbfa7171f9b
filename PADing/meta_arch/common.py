"""What every meta-architecture on the Mask2Former host shares: input preparation and inference."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_backbone, build_sem_seg_head
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.memory import retry_if_cuda_oom
from torch import Tensor, nn
from torch.nn import functional as F

from PADing.meta_arch.answers import check_answers
from PADing.modeling import HungarianMatcher, SetCriterion


class SegmenterBase(nn.Module):
    """Backbone, head, criterion, and the way from query predictions to results.

    A subclass defines ``forward``: in training it returns a dict of losses, in evaluation
    ``self.infer(class_logits, mask_logits, batched_inputs, images)``. Its own constructor arguments and their values
    from the config go into ``from_config`` as an addition to this class's.

    Args:
        backbone, sem_seg_head: see Detectron2; the head returns ``pred_logits``, ``pred_masks``, ``pred_embed``.
        criterion: turns predictions and targets into losses.
        num_queries: queries for each image.
        object_mask_threshold, overlap_threshold: of panoptic inference.
        metadata: of the first training set; tells things from stuff.
        size_divisibility: batches are padded to a multiple of it; negative: of what the backbone asks for.
        sem_seg_postprocess_before_inference: bring masks to the output size before they become results.
        pixel_mean, pixel_std: of each channel, on the scale of 0..255.
        semantic_on, panoptic_on, instance_on: which results are made.
        test_topk_per_image: instances for each image.
        boxes_from_masks: tight boxes around predicted instances; else boxes are zero, as Mask2Former publishes them.
    """

    # Whether the answers are restricted to unseen classes in test sets that hold no other.
    restricts_to_unseen = False

    @configurable
    def __init__(
        self,
        *,
        backbone: nn.Module,
        sem_seg_head: nn.Module,
        criterion: nn.Module,
        num_queries: int,
        object_mask_threshold: float,
        overlap_threshold: float,
        metadata,
        size_divisibility: int,
        sem_seg_postprocess_before_inference: bool,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        semantic_on: bool,
        panoptic_on: bool,
        instance_on: bool,
        test_topk_per_image: int,
        boxes_from_masks: bool = True,
    ) -> None:
        super().__init__()
        if not semantic_on and not sem_seg_postprocess_before_inference:
            raise ValueError("Panoptic and instance results need sem_seg_postprocess_before_inference")
        self.backbone, self.sem_seg_head, self.criterion = backbone, sem_seg_head, criterion
        self.num_queries = num_queries
        self.object_mask_threshold, self.overlap_threshold = object_mask_threshold, overlap_threshold
        self.metadata = metadata
        self.size_divisibility = size_divisibility if size_divisibility >= 0 else backbone.size_divisibility
        self.sem_seg_postprocess_before_inference = sem_seg_postprocess_before_inference
        self.semantic_on, self.panoptic_on, self.instance_on = semantic_on, panoptic_on, instance_on
        self.test_topk_per_image, self.boxes_from_masks = test_topk_per_image, boxes_from_masks
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        cls.check_test_sets(cfg)
        backbone = build_backbone(cfg)
        node, test = cfg.MODEL.MASK_FORMER, cfg.MODEL.MASK_FORMER.TEST
        return {
            "backbone": backbone,
            "sem_seg_head": build_sem_seg_head(cfg, backbone.output_shape()),
            "criterion": cls.build_criterion(cfg),
            "num_queries": node.NUM_OBJECT_QUERIES,
            "object_mask_threshold": test.OBJECT_MASK_THRESHOLD,
            "overlap_threshold": test.OVERLAP_THRESHOLD,
            "metadata": MetadataCatalog.get(cfg.DATASETS.TRAIN[0]),
            "size_divisibility": node.SIZE_DIVISIBILITY,
            "sem_seg_postprocess_before_inference": (
                test.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE or test.PANOPTIC_ON or test.INSTANCE_ON
            ),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "semantic_on": test.SEMANTIC_ON,
            "panoptic_on": test.PANOPTIC_ON,
            "instance_on": test.INSTANCE_ON,
            "test_topk_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
        }

    @classmethod
    def build_criterion(cls, cfg: CfgNode, criterion_type: type[SetCriterion] = SetCriterion) -> SetCriterion:
        """The criterion that the config describes: with deep supervision, weights for every prediction but the last."""
        node = cfg.MODEL.MASK_FORMER
        matcher = HungarianMatcher(
            cost_class=node.CLASS_WEIGHT,
            cost_mask=node.MASK_WEIGHT,
            cost_dice=node.DICE_WEIGHT,
            num_points=node.TRAIN_NUM_POINTS,
        )
        weights = {"loss_ce": node.CLASS_WEIGHT, "loss_mask": node.MASK_WEIGHT, "loss_dice": node.DICE_WEIGHT}
        if node.DEEP_SUPERVISION:
            weights |= {f"{name}_{i}": w for i in range(node.DEC_LAYERS - 1) for name, w in weights.items()}
        return criterion_type(
            cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            matcher=matcher,
            weight_dict=weights,
            eos_coef=node.NO_OBJECT_WEIGHT,
            losses=["labels", "masks"],
            num_points=node.TRAIN_NUM_POINTS,
            oversample_ratio=node.OVERSAMPLE_RATIO,
            importance_sample_ratio=node.IMPORTANCE_SAMPLE_RATIO,
        )

    @classmethod
    def check_test_sets(cls, cfg: CfgNode) -> None:
        """Refuse a config with a test set in which outputs would be taken for other classes; see ``check_answers``."""
        training = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
        for name in cfg.DATASETS.TEST:
            outputs = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
            check_answers(cls.__name__, training, MetadataCatalog.get(name), outputs, cls.restricts_to_unseen)

    def set_test_metadata(self, metadata) -> None:
        """Tell which data set comes next.

        Raises:
            UserError: outputs would be taken for other classes, see ``check_answers``.
        """
        outputs = self.sem_seg_head.num_classes
        check_answers(type(self).__name__, self.metadata, metadata, outputs, self.restricts_to_unseen)

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    # ---- input

    def preprocess(self, batched_inputs: list[dict]) -> ImageList:
        """Normalise ``image`` (3, H, W), 0..255, of each dict and pad right and bottom to a common size."""
        images = [(x["image"].to(self.device) - self.pixel_mean) / self.pixel_std for x in batched_inputs]
        return ImageList.from_tensors(images, self.size_divisibility)

    def prepare_targets(self, instances: list[Instances], images: ImageList) -> list[dict[str, Tensor]]:
        """``gt_classes`` and ``gt_masks`` (n, h, w) of each image -> ``labels`` and zero-padded ``masks`` (n, H, W)."""
        height, width = images.tensor.shape[-2:]
        targets = []
        for item in instances:
            item = item.to(self.device)
            masks = item.gt_masks if isinstance(item.gt_masks, Tensor) else item.gt_masks.tensor
            padding = (0, width - masks.shape[-1], 0, height - masks.shape[-2])
            targets.append({"labels": item.gt_classes, "masks": F.pad(masks, padding) if any(padding) else masks})
        return targets

    def segment(self, images: ImageList) -> dict:
        """Run backbone and head."""
        return self.sem_seg_head(self.backbone(images.tensor))

    def weighted_losses(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Multiply by ``criterion.weight_dict``; losses that it does not name are dropped."""
        weights = self.criterion.weight_dict
        return {name: loss * weights[name] for name, loss in losses.items() if name in weights}

    # ---- inference

    def infer(
        self, class_logits: Tensor, mask_logits: Tensor, batched_inputs: list[dict], images: ImageList
    ) -> list[dict]:
        """Turn predictions into results of the size that each input asks for.

        Args:
            class_logits: (B, Q, K + 1), "no object" last.
            mask_logits: (B, Q, h, w).
            batched_inputs: ``height`` and ``width`` of the result; default: the size of the image.
            images: the preprocessed batch.

        Returns:
            for each image a dict with the results that are switched on: ``sem_seg`` (K, H, W) scores, ``panoptic_seg``
            (map (H, W) int32, segments), ``instances``.
        """
        padded, results = images.tensor.shape[-2:], []
        # Image by image: masks of a whole batch at full size would be the largest tensor of all.
        for classes, masks, record, size in zip(
            class_logits, mask_logits, batched_inputs, images.image_sizes, strict=True
        ):
            height, width = record.get("height", size[0]), record.get("width", size[1])
            masks = F.interpolate(masks[None], size=padded, mode="bilinear", align_corners=False)[0]
            if self.sem_seg_postprocess_before_inference:
                masks = retry_if_cuda_oom(crop_and_resize)(masks, size, height, width)
                classes = classes.to(masks.device)  # the retry may have moved the masks
            result = {}
            if self.semantic_on:
                scores = retry_if_cuda_oom(self.semantic_inference)(classes, masks)
                if not self.sem_seg_postprocess_before_inference:
                    scores = retry_if_cuda_oom(crop_and_resize)(scores, size, height, width)
                result["sem_seg"] = scores
            if self.panoptic_on:
                result["panoptic_seg"] = retry_if_cuda_oom(self.panoptic_inference)(classes, masks)
            if self.instance_on:
                result["instances"] = retry_if_cuda_oom(self.instance_inference)(classes, masks)
            results.append(result)
        return results

    def semantic_inference(self, mask_cls: Tensor, mask_pred: Tensor) -> Tensor:
        """Sum of the masks of all queries, weighted by class: (Q, K + 1), (Q, H, W) logits -> (K, H, W) scores."""
        return torch.einsum("qc,qhw->chw", mask_cls.softmax(-1)[:, :-1], mask_pred.sigmoid())

    def panoptic_inference(self, mask_cls: Tensor, mask_pred: Tensor) -> tuple[Tensor, list[dict]]:
        """Give each pixel to one query (MaskFormer, Sec. 3.4).

        Confident queries compete for pixels by class score times mask; a query keeps those where its own mask is at
        least one half, and is dropped when it keeps less than ``overlap_threshold`` of its mask. Stuff segments of one
        class become one.

        Args:
            mask_cls: (Q, K + 1) logits. mask_pred: (Q, H, W) logits.

        Returns:
            map (H, W) int32 of segment ids, 0 where there is none; and for each segment a dict ``id``, ``isthing``,
            ``category_id`` (contiguous).
        """
        scores, labels = mask_cls.softmax(-1).max(-1)
        keep = (labels != mask_cls.shape[1] - 1) & (scores > self.object_mask_threshold)
        segments: list[dict] = []
        kept = int(keep.sum())
        if kept == 0:
            return torch.zeros(mask_pred.shape[-2:], dtype=torch.int32, device=mask_pred.device), segments
        masks = mask_pred[keep].sigmoid()
        owner = (scores[keep].view(-1, 1, 1) * masks).argmax(0)
        inside = masks >= 0.5
        owner_inside = inside.gather(0, owner[None])[0]
        areas = torch.stack([
            torch.bincount(owner.flatten(), minlength=kept),
            inside.sum((1, 2)),
            torch.bincount(owner[owner_inside], minlength=kept),
        ])  # fmt: skip
        things = set(self.metadata.thing_dataset_id_to_contiguous_id.values())
        ids, stuff_ids = [0] * kept, {}
        rows = zip(labels[keep].tolist(), *areas.tolist(), strict=True)
        for k, (label, owned, original, remaining) in enumerate(rows):
            if min(owned, original, remaining) == 0 or owned / original < self.overlap_threshold:
                continue
            if label not in stuff_ids:
                segments.append({"id": len(segments) + 1, "isthing": label in things, "category_id": label})
                if label not in things:
                    stuff_ids[label] = len(segments)
                ids[k] = len(segments)
            else:
                ids[k] = stuff_ids[label]
        ids = torch.tensor(ids, dtype=torch.int32, device=owner.device)
        return ids[owner] * owner_inside, segments

    def instance_inference(self, mask_cls: Tensor, mask_pred: Tensor) -> Instances:
        """The best (query, class) pairs of an image: (Q, K + 1), (Q, H, W) logits -> :meth:`select_instances`."""
        result = self.select_instances(mask_cls.softmax(-1)[:, :-1], mask_pred, self.test_topk_per_image)
        if self.panoptic_on:
            # The model also knows stuff, which is no instance.
            things = torch.zeros(mask_cls.shape[1], dtype=torch.bool)
            things[list(self.metadata.thing_dataset_id_to_contiguous_id.values())] = True
            result = result[things.to(mask_cls.device)[result.pred_classes]]
        return result

    def select_instances(self, prob: Tensor, masks: Tensor, k: int, label_offset: int = 0) -> Instances:
        """The ``k`` (query, class) pairs of highest probability; one query may appear with several classes.

        Args:
            prob: (Q, K) class probabilities.
            masks: (Q, H, W) mask logits.
            label_offset: added to the class index.

        Returns:
            Instances, in no particular order, with ``pred_masks`` (N, H, W) float 0 or 1, ``pred_boxes`` (XYXY),
            ``scores`` = probability times the mean of the mask's sigmoid inside the mask, ``pred_classes``.
        """
        scores, index = prob.flatten().topk(min(k, prob.numel()), sorted=False)
        query, which = (index // prob.shape[1]).unique(return_inverse=True)  # work once on a mask that is chosen often
        masks = masks[query]
        inside = (masks > 0).to(masks.dtype)
        confidence = (masks.sigmoid() * inside).sum((1, 2)) / (inside.sum((1, 2)) + 1e-6)
        boxes = mask_boxes(inside) if self.boxes_from_masks else inside.new_zeros(len(inside), 4)
        result = Instances(tuple(masks.shape[-2:]))
        result.pred_masks = inside[which]
        result.pred_boxes = Boxes(boxes[which])
        result.scores = scores * confidence[which]
        result.pred_classes = index % prob.shape[1] + label_offset
        return result


def crop_and_resize(maps: Tensor, image_size: tuple[int, int], height: int, width: int) -> Tensor:
    """Cut the padding off (C, H, W) maps and resize them bilinearly to (C, height, width)."""
    maps = maps[:, : image_size[0], : image_size[1]]
    if maps.shape[1:] == (height, width):
        return maps
    return F.interpolate(maps[None], size=(height, width), mode="bilinear", align_corners=False)[0]


def mask_boxes(masks: Tensor) -> Tensor:
    """Tight boxes (x0, y0, x1, y1), x1 and y1 one behind the last pixel: (N, H, W) -> (N, 4) float; zeros if empty."""
    boxes = []
    for axis in (1, 2):  # columns, then rows
        occupied = masks.amax(axis) > 0  # (N, length)
        length = occupied.shape[1]
        places = torch.arange(1, length + 1, device=masks.device)
        end = (occupied * places).amax(1)
        start = length - (occupied * places.flip(0)).amax(1)
        boxes.append(torch.stack([torch.where(end > 0, start, 0), end], dim=1))
    return torch.stack(boxes, dim=2).flatten(1).float()
