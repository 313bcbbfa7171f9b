"""PADing: a classifier that is finetuned on generated features of unseen classes (He et al., CVPR 2023)."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import ImageList
from torch import Tensor, nn
from torch.nn import functional as F

from PADing.class_space import ClassSpace
from PADing.generation.class_tables import ClassTables, check_class_count
from PADing.generation.feature_generator import FeatureGenerator, GeneratorStep, generator_type
from PADing.generation.frozen_segmenter import FrozenSegmenter
from PADing.generation.new_classes import vocabulary_rows
from PADing.generation.self_training import Teacher
from PADing.meta_arch.evaluation_set_check import split_classes
from PADing.meta_arch.vocabulary import Vocabulary

logger = logging.getLogger(__name__)


@META_ARCH_REGISTRY.register()
class PADing(FrozenSegmenter):
    """A frozen segmenter, a generator of features, and the classifier ``new_fc`` that learns from both.

    Args:
        classifier: features (d) -> logits (C + 1), "no object" last.
        feature_generator: generates features of unseen classes.
        classes: positions and embeddings of the classes; inference needs no embeddings.
        node: the config's ``MODEL.MASK_FORMER``.
        common: see ``FrozenSegmenter``; the criterion matches queries with targets.
    """

    training_recipe = "GeneratorClassifier"
    restricts_to_unseen = True

    @configurable
    def __init__(
        self,
        *,
        classifier: nn.Linear,
        feature_generator: FeatureGenerator,
        classes: ClassTables,
        node: CfgNode,
        **common,
    ) -> None:
        super().__init__(**common)
        self.num_choose, self.classification_weight = node.NUM_CHOOSE, node.GENERATOR_CLS_WEIGHT
        self.features_per_class = node.FEATURES_PER_CLASS
        self.cls_slice, self.seen_cls_only = node.CLS_SLICE, node.SEEN_CLS_ONLY
        self.label_offset, self.unseen_only = 0, False
        self.new_class_share = node.NEW_CLASS_SHARE
        self._rows: tuple[Tensor, Tensor] | None = None  # weight and bias for the classes of a vocabulary
        self.teacher: Teacher | None = None
        self.new_fc = classifier
        # The generator's networks are children of this model, as in checkpoints; the tuple hides the generator itself.
        for name, network in feature_generator.named_children():
            self.add_module(name, network)
        self._feature_generator = (feature_generator,)
        self.classes = classes

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The constructor's arguments; as published, random weights are drawn for the classifier first."""
        check_class_count(cfg)
        node, common, classes = cfg.MODEL.MASK_FORMER, super().from_config(cfg), ClassTables(cfg)
        return {
            **common,
            "classes": classes,
            "classifier": nn.Linear(node.HIDDEN_DIM, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES + 1),
            "feature_generator": generator_type(cfg)(node, classes.embeddings.shape[1]),
            "node": node,
        }

    @property
    def feature_generator(self) -> FeatureGenerator:
        """The generator of features from class embeddings."""
        return self._feature_generator[0]

    # ---- the contract

    @classmethod
    def count_classes(cls, cfg: CfgNode) -> int:
        """The number of all classes of the split, seen and unseen."""
        return len(ClassSpace.of_config(cfg).vocabulary)

    @classmethod
    def check_start(cls, cfg: CfgNode, training: bool) -> None:
        """Also check the number of classes and, before a training, the class embeddings."""
        check_class_count(cfg)
        super().check_start(cfg, training)
        if training:
            ClassTables(cfg).check_trainable()

    @classmethod
    def further_weights(cls, cfg: CfgNode) -> dict[str, str]:
        """Also the weights of the first model in self-training."""
        own = {"MODEL.MASK_FORMER.SELF_TRAINING.WEIGHTS": cfg.MODEL.MASK_FORMER.SELF_TRAINING.WEIGHTS}
        return {**super().further_weights(cfg), **own}

    def harmless_weights(self) -> tuple[str, ...]:
        """The projection of class embeddings if there are none: its width is a guess, and it is not used."""
        return ("fc_projection.",) if self.classes.missing else ()

    # ---- what the training recipe asks for

    def begin_second_stage(self) -> None:
        """Freeze the segmenter; UserError if there are no class embeddings or no unseen classes."""
        self.classes.check_trainable()
        last = int(self.classes.seen.max()) if len(self.classes.seen) else -1
        if not self.seen_cls_only and last >= self.cls_slice:
            logger.info(
                "MODEL.MASK_FORMER.CLS_SLICE %d would cut off seen classes (the last is %d), so the classification "
                "term uses the logits of all seen classes, as with SEEN_CLS_ONLY True.", self.cls_slice, last,
            )  # fmt: skip
            self.seen_cls_only = True
        self.freeze_segmenter()

    def learn_from(self, weights: Mapping[str, Tensor], score: float, max_overlap: float) -> None:
        """Self-training: take pseudo labels from the classifier in a first model's state dict."""
        self.teacher = Teacher.of(weights, self.new_fc, score, max_overlap)

    def generator_parameters(self) -> list[nn.Parameter]:
        """The parameters of the generator step, in the published order."""
        return [p for network in self.feature_generator.trained_networks() for p in network.parameters()]

    def classifier_parameters(self) -> list[nn.Parameter]:
        """The parameters of the classifier step."""
        return list(self.new_fc.parameters())

    # ---- forward

    def forward(
        self,
        batched_inputs: list[dict] | None,
        *,
        real_embeddings: Tensor | None = None,
        target_classes: Tensor | None = None,
    ):
        """One of three steps; all go through ``forward`` for ``DistributedDataParallel``.

        - Training, with images: the generator step, see ``forward_train_generator``.
        - Training, with ``None`` and the outputs of the generator step (``real_embeddings`` is the published name of
          query features): the classifier step, see ``forward_train_classifier``.
        - Evaluation: results, see ``SegmenterBase.infer``.
        """
        if batched_inputs is None:
            assert real_embeddings is not None and target_classes is not None
            return self.forward_train_classifier(real_embeddings, target_classes)
        if self.training:
            return self.forward_train_generator(batched_inputs)
        images = self.preprocess(batched_inputs)
        return self.infer(*self.predict(images), batched_inputs, images)

    def forward_train_generator(self, batched_inputs: list[dict]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Loss of the generator (PADing, Sec. 3.2 and 3.3) on images with ``instances``, and inputs of the next step.

        Returns:
            ``{"generate_loss": scalar}``; features of all queries (B, Q, d); their classes (B, Q) int64, C for
            unmatched queries.
        """
        terms, query_features, target_classes = self.generator_terms(batched_inputs)
        return {"generate_loss": terms["generate_loss"]}, query_features, target_classes

    def generator_terms(self, batched_inputs: list[dict]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """As ``forward_train_generator``, with every term of the loss; see ``FeatureGenerator.terms``."""
        if not self.segmenter_frozen:
            self.begin_second_stage()
        features, target_classes, labels, matched = self.match(batched_inputs)
        step = GeneratorStep(features[matched], labels, self.classes, self.classification_term)
        return self.feature_generator.terms(step), features, target_classes

    def classification_term(self, generated: Tensor, labels: Tensor) -> Tensor:
        """Weighted cross-entropy of the classifier on features (n, d) generated for seen classes (n,)."""
        logits = self.new_fc(generated)
        if self.seen_cls_only:
            logits, labels = logits[:, self.classes.seen], self.classes.seen_row[labels]
        else:
            logits = logits[:, : self.cls_slice]
        return self.classification_weight * F.cross_entropy(logits, labels)

    def label_unmatched(self, classes: Tensor, outputs: dict[str, Tensor], targets: list[dict[str, Tensor]]) -> Tensor:
        """``classes``, in self-training with the first model's pseudo labels."""
        if self.teacher is None:
            return classes
        return self.teacher.relabel(classes, outputs, targets, self.classes.unseen)

    def forward_train_classifier(self, query_features: Tensor, target_classes: Tensor) -> dict[str, Tensor]:
        """Loss of the classifier on query features and generated features of unseen classes (PADing, Sec. 3.1).

        Query features (B, Q, d) and their classes (B, Q) int64 -> ``{"dis_loss": scalar}``. Only ``new_fc`` gets a
        gradient.
        """
        unseen, number = self.classes.unseen, self.features_per_class
        chosen = torch.randperm(len(unseen))[: self.num_choose].to(unseen.device).repeat(number)
        with torch.no_grad():
            queries = self.feature_generator.fc_projection(self.classes.unseen_embeddings)[chosen]
            generated = self.feature_generator.generate(queries)
        features = torch.cat([query_features.flatten(0, 1), generated])
        labels = torch.cat([target_classes.flatten(), unseen[chosen]])
        if number == 1:
            # The mean weights each row by its class.
            return {"dis_loss": F.cross_entropy(self.new_fc(features), labels, self.classes.loss_weight)}
        weight = self.classes.loss_weight[labels]
        weight[len(labels) - len(chosen) :] /= number
        losses = F.cross_entropy(self.new_fc(features), labels, reduction="none")
        return {"dis_loss": (weight * losses).sum() / weight.sum()}

    # ---- which classes are predicted: all, the unseen ones alone, or those of a vocabulary

    def set_test_metadata(self, metadata: Any) -> None:
        """Restrict the results to unseen classes if the evaluation set has no others; ends the use of a vocabulary."""
        super().set_test_metadata(metadata)
        self.vocabulary = self._rows = None
        space = split_classes(metadata)
        self.unseen_only = space is not None and space.subset == "unseen"
        self.label_offset = space.offset if space is not None else 0

    def output_names(self) -> tuple[str, ...]:
        """As in the base class; on evaluation sets of unseen classes without the classes before them."""
        return super().output_names()[self.label_offset if self.unseen_only else 0 :]

    def set_vocabulary(self, vocabulary: Vocabulary | None) -> None:
        """Classify with the rows of a vocabulary's classes, which are fitted to generated features if they are new."""
        if vocabulary is None:
            self._rows = None
            return
        training = self.training
        self.eval()  # the generator has dropout
        try:
            self._rows = vocabulary_rows(
                vocabulary, self.feature_generator, self.new_fc, self.classes, self.new_class_share
            )
        finally:
            self.train(training)

    def predict(self, images: ImageList) -> tuple[Tensor, Tensor]:
        """See ``SegmenterBase.predict``; seen classes are left out on evaluation sets of unseen classes."""
        outputs = self.segment(images)
        features = outputs["pred_embed"]
        class_logits = self.new_fc(features) if self._rows is None else F.linear(features, *self._rows)
        if self.unseen_only and self.vocabulary is None:
            class_logits = class_logits.index_fill(2, self.classes.seen, float("-inf"))
            # Contiguous ids of such a set may begin at the first unseen class.
            class_logits = class_logits[..., self.label_offset :]
        return class_logits, outputs["pred_masks"]
