"""Shared by all meta-architectures on the Mask2Former host: input preparation and inference."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.modeling import Backbone, build_backbone, build_sem_seg_head
from detectron2.structures import ImageList, Instances
from detectron2.utils.memory import retry_if_cuda_oom
from torch import Tensor, nn
from torch.nn import functional as F

from PADing.allocator import trim_memory
from PADing.class_space import ClassSpace
from PADing.errors import UserError
from PADing.meta_arch.contract import ModelContract
from PADing.meta_arch.evaluation_set_check import check_evaluation_set
from PADing.meta_arch.instance_rule import InstanceRule
from PADing.meta_arch.maps import Maps, Resized, Stored, as_maps, computed, held
from PADing.meta_arch.results import make_instances, panoptic_map, semantic_scores
from PADing.meta_arch.second_classifier import (
    SecondClassifier,
    build_second_classifier,
    reclassified,
    second_classifier_type,
)
from PADing.meta_arch.vocabulary import Vocabulary
from PADing.modeling import SetCriterion, WholeBatch, mean_of_shares
from PADing.modeling.transfer import to_device


class QueryPredictions(NamedTuple):
    """What the networks predict for one image, before results are computed of it."""

    class_logits: Tensor  # (Q, K + 1)
    mask_logits: Tensor  # (Q, h, w), of the padded image
    padded: tuple[int, int]
    image_size: tuple[int, int]


class SegmenterBase(ModelContract, nn.Module):
    """Backbone, head, criterion, and inference from query predictions to results.

    A subclass defines ``forward``, which returns a dict of losses in training and
    ``self.infer(*self.predict(images), batched_inputs, images)`` in evaluation. A subclass with further constructor
    arguments adds their values to the dict of ``from_config``.

    Args:
        backbone, sem_seg_head: see Detectron2; the head returns ``pred_logits``, ``pred_masks``, ``pred_embed``.
        criterion: computes losses from predictions and targets.
        num_queries: queries per image.
        object_mask_threshold, overlap_threshold: see :func:`panoptic_map`.
        metadata: of the first training set; says which classes are things.
        size_divisibility: batches are padded to a multiple of it; negative: the backbone's value.
        sem_seg_postprocess_before_inference: resize masks to the output size before computing results.
        pixel_mean, pixel_std: of each channel, on the scale 0..255.
        semantic_on, panoptic_on, instance_on: the results to compute.
        test_topk_per_image: instances per image.
        boxes_from_masks: tight boxes around predicted instances; False: zero boxes, as in the published Mask2Former.
        second_classifier: classifies the masks again in inference; it is no part of the state dict.

    Raises:
        ValueError: panoptic or instance results without ``sem_seg_postprocess_before_inference``.
    """

    built_on_host = True
    pixel_mean: Tensor
    pixel_std: Tensor
    # A subclass of SetCriterion adds losses.
    criterion_type: type[SetCriterion] = SetCriterion
    # The classes of the outputs, if a user has named others than the training's; see use_vocabulary.
    vocabulary: Vocabulary | None = None
    # Factor of class logits in the softmax of class probabilities.
    inverse_temperature: float = 1.0
    # A list: ``infer`` appends the predictions of each image to it, and computes no results.
    collected: list[QueryPredictions] | None = None

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
        second_classifier: SecondClassifier | None = None,
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
        self._second = (second_classifier,)  # the tuple hides it from the state dict
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """The constructor's arguments from a config; a subclass adds its own."""
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
            "second_classifier": build_second_classifier(cfg),
        }

    @classmethod
    def check_start(cls, cfg: CfgNode, training: bool) -> None:
        """Check the evaluation sets with ``check_test_sets``, and the second classifier."""
        cls.check_test_sets(cfg)
        if kind := second_classifier_type(cfg):
            kind.check(cfg, ClassSpace.of_config(cfg).vocabulary)

    @classmethod
    def further_weights(cls, cfg: CfgNode) -> dict[str, str]:
        """The weights of a backbone of timm."""
        timm = cfg.MODEL.BACKBONE.NAME == "TimmBackbone"
        return {"MODEL.TIMM.WEIGHTS": cfg.MODEL.TIMM.WEIGHTS} if timm else {}

    @classmethod
    def check_test_sets(cls, cfg: CfgNode) -> None:
        """UserError if an evaluation set does not fit the model's classes; see ``check_evaluation_set``."""
        training, outputs = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]), cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        for name in cfg.DATASETS.TEST:
            check_evaluation_set(cls, training, MetadataCatalog.get(name), outputs)

    def set_test_metadata(self, metadata: Any) -> None:
        """UserError if the evaluation set does not fit the model's classes; see ``check_evaluation_set``."""
        check_evaluation_set(type(self), self.metadata, metadata, self.criterion.num_classes)

    def keep_first_result(self) -> None:
        """Switch off all results but the first of panoptic, instance and semantic that is on."""
        self.instance_on = self.instance_on and not self.panoptic_on
        self.semantic_on = self.semantic_on and not self.panoptic_on and not self.instance_on

    def explain_wrong_shapes(self, keys: Sequence[str]) -> str:
        """If only the class head has other shapes, the file has another number of classes."""
        if not all("class_embed" in key for key in keys):
            return ""
        return (
            "The file was trained with another number of classes. Choose the config of the file's split; or leave out "
            "its class head, to train another one: tools/convert_weights.py --from mask2former --drop-class-head."
        )

    @property
    def second_classifier(self) -> SecondClassifier | None:
        """The second classifier of inference."""
        return self._second[0]

    def output_names(self) -> tuple[str, ...]:
        """The names of the classes that :meth:`predict` scores, when no vocabulary is in use."""
        return ClassSpace.of(self.metadata).vocabulary[: self.criterion.num_classes]

    @property
    def things(self) -> frozenset[int]:
        """The outputs (class numbers) that are things."""
        return self._own_things if self.vocabulary is None else self.vocabulary.space.things

    @cached_property
    def _own_things(self) -> frozenset[int]:
        return ClassSpace.of(self.metadata).things

    @property
    def device(self) -> torch.device:
        """The device of the model and its inputs."""
        return self.pixel_mean.device

    # ---- input

    def preprocess(self, batched_inputs: list[dict]) -> ImageList:
        """Normalise ``image`` (3, H, W), 0..255, of each dict and pad it at the right and bottom to a common size."""
        if self.device.type == "cpu" and not self.training:
            trim_memory()  # images of many sizes leave gaps
        images = [(to_device(x["image"], self.device) - self.pixel_mean) / self.pixel_std for x in batched_inputs]
        batch = ImageList.from_tensors(images, self.size_divisibility)
        if batch.tensor.device.type == "cpu":
            # Convolutions keep this layout, which is also the encoder's. So maps are not copied from one to another.
            batch.tensor = batch.tensor.contiguous(memory_format=torch.channels_last)
        return batch

    def instances_of(self, batched_inputs: list[dict]) -> list[Instances]:
        """The annotated instances of each image; UserError if the mapper does not return them."""
        if not all("instances" in sample for sample in batched_inputs):
            raise UserError(
                "The mapper of INPUT.DATASET_MAPPER_NAME returns images without instances, which the losses need. "
                "Detectron2's own (default) returns them for instance data sets only. Choose a mapper for the kind of "
                "data set in DATASETS.TRAIN."
            )
        return [sample["instances"] for sample in batched_inputs]

    def prepare_targets(self, instances: list[Instances], images: ImageList) -> list[dict[str, Tensor]]:
        """Targets of each image: ``labels`` (n,) and ``masks`` (n, H, W), zero-padded from ``gt_masks`` (n, h, w)."""
        height, width = images.tensor.shape[-2:]
        targets = []
        for item in instances:
            masks = item.gt_masks if isinstance(item.gt_masks, Tensor) else item.gt_masks.tensor
            masks, labels = to_device(masks, self.device), to_device(item.gt_classes, self.device)
            padding = (0, width - masks.shape[-1], 0, height - masks.shape[-2])
            targets.append({"labels": labels, "masks": F.pad(masks, padding) if any(padding) else masks})
        return targets

    def segment(self, images: ImageList) -> dict:
        """Run backbone and head."""
        return self.sem_seg_head(self.backbone(images.tensor))

    def predict(self, images: ImageList) -> tuple[Tensor, Tensor]:
        """Predictions in evaluation: class logits (B, Q, K + 1), "no object" last, and mask logits (B, Q, h, w).

        A method that classifies in another way overrides it. Exports call it with ``images.tensor`` alone, whose size
        is a symbol: use tensor operations, and no Python numbers made of values.
        """
        outputs = self.segment(images)
        return outputs["pred_logits"], outputs["pred_masks"]

    def weighted_losses(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Multiply losses by ``criterion.weight_dict``; ValueError for losses without a weight."""
        weights, kind = self.criterion.weight_dict, type(self.criterion).__name__
        if missing := sorted(losses.keys() - weights.keys()):
            raise ValueError(f"{kind} makes {', '.join(missing)}, for which {kind}.loss_weights names no weight")
        return {name: loss * weights[name] for name, loss in losses.items()}

    def begin_micro_batches(self, parts: Sequence[list[dict]]) -> None:
        """Tell the criterion the targets of all micro-batches, for divisors and random draws of the whole batch."""
        labels = [sample["instances"].gt_classes for part in parts for sample in part if "instances" in sample]
        self.criterion.whole = WholeBatch(labels, len(parts)) if parts else None

    def begin_shares(self, batches: Sequence[list[dict]], number: int) -> None:
        """Tell the criterion the mean number of targets per share, for the divisor of the mask losses."""
        counts = [len(sample["instances"]) for batch in batches for sample in batch if "instances" in sample]
        self.criterion.mean_targets = mean_of_shares(sum(counts), number, self.device) if number else None

    # ---- inference

    def infer(
        self, class_logits: Tensor, mask_logits: Tensor, batched_inputs: list[dict], images: ImageList
    ) -> list[dict]:
        """Compute results from predictions, at the size that each input asks for.

        Args:
            class_logits: (B, Q, K + 1), "no object" last.
            mask_logits: (B, Q, h, w).
            batched_inputs: dicts with ``height`` and ``width`` of the result; default: the size of the image.
            images: the preprocessed batch.

        Returns:
            for each image a dict with the results that are switched on: ``sem_seg`` (K, H, W) scores, ``panoptic_seg``
            (map (H, W) int32, segments), ``instances``. For very large images, ``sem_seg`` and ``pred_masks`` are
            objects of :mod:`PADing.meta_arch.maps`, which compute values on access.
        """
        if self.second_classifier is not None:
            class_logits = reclassified(self, class_logits, mask_logits, images)
        padded = images.tensor.shape[-2], images.tensor.shape[-1]
        if self.collected is not None:
            for classes, masks, size in zip(class_logits, mask_logits, images.image_sizes, strict=True):
                self.collected.append(QueryPredictions(classes, masks, padded, (size[0], size[1])))
            return [{} for _ in batched_inputs]
        results = []
        # One image at a time, because masks of a whole batch at full size take too much memory.
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
        """The results of one image from (Q, K + 1) and (Q, h, w) logits; see :meth:`infer`.

        Masks are resized to the ``padded`` size, cropped to ``image_size``, and resized to ``output_size``.
        """
        maps = Resized(Stored(mask_pred), padded)
        if self.sem_seg_postprocess_before_inference:
            maps = Resized(maps, output_size, crop=image_size)
        masks, result = maps if maps.device.type == "cpu" else computed(maps), dict[str, Any]()
        if self.semantic_on:
            scores = self.semantic_inference(mask_cls, masks)
            if not self.sem_seg_postprocess_before_inference:
                scores = held(Resized(as_maps(scores), output_size, crop=image_size))
            result["sem_seg"] = scores
        return result | self.segment_results(mask_cls, masks)

    def segment_results(self, mask_cls: Tensor, masks: Tensor | Maps) -> dict:
        """The panoptic and instance results that are switched on, from masks (Q, H, W) at the size of the result."""
        result: dict[str, Any] = {}
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
        """The instances of an image, see :func:`make_instances`, by :meth:`instance_rule`.

        ``mask_cls`` (Q, K + 1) and ``mask_pred`` (Q, H, W) are logits.
        """
        rule = self.instance_rule()
        scores, queries, classes = rule.pairs(mask_cls)
        if rule.kept is not None:
            kept = rule.is_kept(classes).nonzero()[:, 0]
            scores, queries, classes = scores[kept], queries[kept], classes[kept]
        return make_instances(scores, queries, classes, mask_pred, self.boxes_from_masks)

    def instance_rule(self) -> InstanceRule:
        """Which (query, class) pairs become instances: the most probable, of things alone if the model knows stuff."""
        return InstanceRule(
            groups=((self.test_topk_per_image, None),),
            kept=tuple(sorted(self.things)) if self.panoptic_on else None,
        )
