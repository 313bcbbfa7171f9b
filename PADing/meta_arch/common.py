"""What every meta-architecture on the Mask2Former host shares: input preparation and inference."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.modeling import Backbone, build_backbone, build_sem_seg_head
from detectron2.structures import ImageList, Instances
from detectron2.utils.memory import retry_if_cuda_oom
from torch import Tensor, nn
from torch.nn import functional as F

from PADing.class_space import ClassSpace
from PADing.errors import UserError
from PADing.meta_arch.contract import ModelContract
from PADing.meta_arch.evaluation_set_check import check_evaluation_set
from PADing.meta_arch.maps import Maps, Resized, Stored, as_maps, computed, held
from PADing.meta_arch.results import best_pairs, make_instances, panoptic_map, semantic_scores
from PADing.modeling import SetCriterion


class SegmenterBase(ModelContract, nn.Module):
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

    built_on_host = True
    pixel_mean: Tensor
    pixel_std: Tensor
    # A subclass of SetCriterion adds losses.
    criterion_type: type[SetCriterion] = SetCriterion

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        sem_seg_head: nn.Module,
        criterion: SetCriterion,
        num_queries: int,
        object_mask_threshold: float,
        overlap_threshold: float,
        metadata: Any,
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
        """Build the parts that a config describes; a subclass adds its own arguments."""
        cls.check_test_sets(cfg)
        backbone = build_backbone(cfg)
        node, test = cfg.MODEL.MASK_FORMER, cfg.MODEL.MASK_FORMER.TEST
        return {
            "backbone": backbone,
            "sem_seg_head": build_sem_seg_head(cfg, backbone.output_shape()),
            "criterion": cls.criterion_type(cfg),
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
    def check_start(cls, cfg: CfgNode, training: bool) -> None:
        """Check the evaluation sets, see ``check_test_sets``."""
        cls.check_test_sets(cfg)

    @classmethod
    def check_test_sets(cls, cfg: CfgNode) -> None:
        """Refuse evaluation sets in which outputs would be taken for other classes; see ``check_evaluation_set``."""
        training, outputs = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]), cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        for name in cfg.DATASETS.TEST:
            check_evaluation_set(cls, training, MetadataCatalog.get(name), outputs)

    def set_test_metadata(self, metadata: Any) -> None:
        """Refuse a set in which outputs would be taken for other classes; see ``check_evaluation_set``."""
        check_evaluation_set(type(self), self.metadata, metadata, self.criterion.num_classes)

    def keep_first_result(self) -> None:
        """Leave the first of panoptic, instance and semantic results that is on."""
        self.instance_on = self.instance_on and not self.panoptic_on
        self.semantic_on = self.semantic_on and not self.panoptic_on and not self.instance_on

    def explain_wrong_shapes(self, keys: Sequence[str]) -> str:
        """Other sizes of the class head alone mean other classes."""
        if not all("class_embed" in key for key in keys):
            return ""
        return "The file was trained with another number of classes. Choose the config of the file's split."

    @cached_property
    def things(self) -> frozenset[int]:
        """Outputs that stand for things."""
        return ClassSpace.of(self.metadata).things

    @property
    def device(self) -> torch.device:
        """Where images go."""
        return self.pixel_mean.device

    # ---- input

    def preprocess(self, batched_inputs: list[dict]) -> ImageList:
        """Normalise ``image`` (3, H, W), 0..255, of each dict and pad right and bottom to a common size."""
        images = [(x["image"].to(self.device) - self.pixel_mean) / self.pixel_std for x in batched_inputs]
        return ImageList.from_tensors(images, self.size_divisibility)

    def instances_of(self, batched_inputs: list[dict]) -> list[Instances]:
        """What is annotated in each image; UserError if the mapper has not given it."""
        if not all("instances" in sample for sample in batched_inputs):
            raise UserError(
                "The mapper of INPUT.DATASET_MAPPER_NAME gives images without instances, which the losses need. "
                "Detectron2's own (default) finds them in instance data sets alone; choose the mapper for the kind of "
                "DATASETS.TRAIN."
            )
        return [sample["instances"] for sample in batched_inputs]

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
        """Multiply by ``criterion.weight_dict``; ValueError names the losses that have no weight."""
        weights, kind = self.criterion.weight_dict, type(self.criterion).__name__
        if missing := sorted(losses.keys() - weights.keys()):
            raise ValueError(f"{kind} makes {', '.join(missing)}, for which {kind}.loss_weights names no weight")
        return {name: loss * weights[name] for name, loss in losses.items()}

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
            (map (H, W) int32, segments), ``instances``. ``sem_seg`` and ``pred_masks`` of very large images are not
            tensors, but computed where they are asked for: :mod:`PADing.meta_arch.maps`.
        """
        padded = tuple(images.tensor.shape[-2:])
        results = []
        # Image by image: masks of a whole batch at full size would be the largest tensor of all.
        for classes, masks, record, size in zip(
            class_logits, mask_logits, batched_inputs, images.image_sizes, strict=True
        ):
            output_size = (record.get("height", size[0]), record.get("width", size[1]))
            results.append(retry_if_cuda_oom(self.image_results)(classes, masks, padded, tuple(size), output_size))
        return results

    def image_results(
        self,
        mask_cls: Tensor,
        mask_pred: Tensor,
        padded: tuple[int, int],
        image_size: tuple[int, int],
        output_size: tuple[int, int],
    ) -> dict:
        """Results of one image: (Q, K + 1), (Q, h, w) logits; see :meth:`infer`.

        Masks are resized to the ``padded`` size, cropped to the image's, and resized to the result's, in this order.
        """
        maps = Resized(Stored(mask_pred), padded)
        if self.sem_seg_postprocess_before_inference:
            maps = Resized(maps, output_size, crop=image_size)
        masks, result = computed(maps), dict[str, Any]()
        if self.semantic_on:
            scores = self.semantic_inference(mask_cls, masks)
            if not self.sem_seg_postprocess_before_inference:
                scores = held(Resized(as_maps(scores), output_size, crop=image_size))
            result["sem_seg"] = scores
        if self.panoptic_on:
            result["panoptic_seg"] = self.panoptic_inference(mask_cls, masks)
        if self.instance_on:
            result["instances"] = self.instance_inference(mask_cls, masks)
        return result

    def semantic_inference(self, mask_cls: Tensor, mask_pred: Tensor | Maps) -> Tensor | Maps:
        """Scores (K, H, W), see :func:`semantic_scores`."""
        return semantic_scores(mask_cls, mask_pred)

    def panoptic_inference(self, mask_cls: Tensor, mask_pred: Tensor | Maps) -> tuple[Tensor, list[dict]]:
        """Map of segment ids (H, W) and the list of segments, see :func:`panoptic_map`."""
        return panoptic_map(mask_cls, mask_pred, self.things, self.object_mask_threshold, self.overlap_threshold)

    def instance_inference(self, mask_cls: Tensor, mask_pred: Tensor | Maps) -> Instances:
        """The best (query, class) pairs of an image, see :func:`make_instances`: (Q, K + 1), (Q, H, W) logits."""
        result = self.select_instances(mask_cls.softmax(-1)[:, :-1], mask_pred, self.test_topk_per_image)
        if self.panoptic_on:
            # The model also knows stuff, which is no instance.
            things = torch.zeros(mask_cls.shape[1], dtype=torch.bool)
            things[list(self.things)] = True
            result = result[things.to(mask_cls.device)[result.pred_classes]]
        return result

    def select_instances(self, prob: Tensor, masks: Tensor | Maps, k: int) -> Instances:
        """Instances of the ``k`` most probable (query, class) pairs: (Q, K) probabilities, (Q, H, W) logits."""
        scores, queries, classes = best_pairs(prob, k)
        return make_instances(scores, queries, classes, masks, self.boxes_from_masks)
