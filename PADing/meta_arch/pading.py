"""PADing: the host's classifier, finetuned on generated embeddings of unseen classes (He et al., CVPR 2023)."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import ImageList
from torch import Tensor, nn

from PADing.errors import UserError
from PADing.generation import (
    Decoder,
    Encoder,
    GeneratorParts,
    MLPGenerator,
    RelationNet,
    StructureWeights,
    classifier_loss,
    generate,
    generator_terms,
)
from PADing.meta_arch.class_constants import class_constants
from PADing.meta_arch.class_count import check_split_count, split_classes
from PADing.meta_arch.class_vectors import ClassVectors, check_second_stage, load_vectors, unseen_classes
from PADing.meta_arch.common import SegmenterBase
from PADing.meta_arch.segmenter_cache import SegmenterCache
from PADing.meta_arch.starting_weights import CONVERT, explain_name, explain_unfit_weights
from PADing.meta_arch.teacher import Teacher
from PADing.modeling import TransformerDecoder, TransformerDecoderLayer

# What the generator side consists of, in the order in which its optimizer holds the parameters.
GENERATOR_SIDE = (
    "generator", "fc_projection", "dict_feature", "projection_related", "projection_unrelated", "relation", "decoder",
)  # fmt: skip
GENERATORS = ("primitive", "mlp", "linear")


@META_ARCH_REGISTRY.register()
class PADing(SegmenterBase):
    """A frozen segmenter, a generator of class embeddings, and the classifier ``new_fc`` that learns from both.

    Args:
        criterion: matches queries with targets, see :meth:`SetCriterion.match`.
        hidden_dim: width d of query embeddings.
        class_vectors: of all C classes; building a model for inference needs none.
        unseen_index: positions of the U unseen classes among the outputs.
        relation_over_seen: the relation net tells seen embeddings apart among seen classes only (as published for word
            vectors), else among all classes (for CLIP).
        num_choose: unseen classes drawn for each classifier step.
        class_weight_unseen, no_object_weight: of these rows in the classifier's loss; seen classes have 1.
        generator: "primitive"; "mlp", see ``MLPGenerator``; "linear": the projection of the class vector is the class
            embedding, fitted by least squares without any structure term.
        disentangle: take embeddings apart before alignment and relation terms. align: with alignment terms.
        classification_weight: factor of the classification term in the generator's loss.
        structure_weights: factors of the structure loss.
        cls_slice: number of logits in the generator's classification term, counted from the first.
        seen_cls_only: take the logits of seen classes instead.
        drop_rate: dropout of the disentangling networks.
        trans_num_layer, trans_num_heads, trans_drop_rate: of the generator ("mlp": hidden layers and their dropout).
        trans_num_query: number of primitives.
        noise: add Gaussian noise in every layer of the generator ("mlp": beside its input).
        segmenter_cache: folder for the frozen segmenter's answers, see ``SegmenterCache``; empty: they are not kept.
        random_segmenter: train also without weights of stage 1.
        common: see ``SegmenterBase``.
    """

    training_recipe = "GeneratorClassifier"
    restricts_to_unseen = True

    @configurable
    def __init__(
        self,
        *,
        hidden_dim: int,
        class_vectors: ClassVectors,
        unseen_index: Sequence[int],
        relation_over_seen: bool,
        num_choose: int,
        class_weight_unseen: float,
        no_object_weight: float,
        generator: str,
        disentangle: bool,
        align: bool,
        classification_weight: float,
        structure_weights: StructureWeights,
        cls_slice: int,
        seen_cls_only: bool,
        drop_rate: float,
        trans_num_layer: int,
        trans_num_heads: int,
        trans_drop_rate: float,
        trans_num_query: int,
        noise: bool,
        segmenter_cache: str = "",
        random_segmenter: bool = False,
        **common,
    ) -> None:
        super().__init__(**common)
        num_classes = self.sem_seg_head.num_classes
        self.num_choose, self.align = num_choose, align
        self.structure_weights = None if generator == "linear" else structure_weights
        self.classification_weight = classification_weight
        self.cls_slice, self.seen_cls_only = cls_slice, seen_cls_only
        self.vectors_problem = class_vectors.problem
        self.segmenter_frozen, self.random_segmenter = False, random_segmenter
        self.cache = SegmenterCache(segmenter_cache, (self.backbone, self.sem_seg_head)) if segmenter_cache else None
        self.label_offset, self.unseen_only = 0, False
        self.teacher: Teacher | None = None

        self.new_fc = nn.Linear(hidden_dim, num_classes + 1)
        self.fc_projection = nn.Linear(class_vectors.width, hidden_dim)
        self.dict_feature = self.projection_related = self.projection_unrelated = self.relation = self.decoder = None
        if generator == "primitive":
            self.dict_feature = nn.Embedding(trans_num_query, hidden_dim)
            layer = TransformerDecoderLayer(
                hidden_dim, trans_num_heads, 4 * hidden_dim, trans_drop_rate, pre_norm=False, noise=noise
            )
            self.generator = TransformerDecoder(layer, trans_num_layer)
        elif generator == "mlp":
            self.generator = MLPGenerator(hidden_dim, 4 * hidden_dim, trans_num_layer, trans_drop_rate, noise)
        else:
            self.generator = nn.Identity()
        if self.structure_weights is not None:
            self._add_structure_networks(drop_rate, hidden_dim, disentangle)
        weights = class_weight_unseen, no_object_weight
        constants = class_constants(class_vectors.vectors, num_classes, unseen_index, relation_over_seen, *weights)
        for name, value in constants.items():  # these move with the model and stay out of its checkpoints
            self.register_buffer(name, value, persistent=False)

    def _add_structure_networks(self, drop_rate: float, hidden_dim: int, disentangle: bool) -> None:
        # In this order, because random initial weights are drawn on the way.
        if disentangle:
            self.projection_related = Encoder(drop_rate, hidden_dim)
            self.projection_unrelated = Encoder(drop_rate, hidden_dim)
        self.relation = RelationNet(hidden_dim, hidden_dim)
        if disentangle:
            self.decoder = Decoder(drop_rate, hidden_dim)

    @classmethod
    def count_classes(cls, cfg: CfgNode) -> int:
        return len(split_classes(cfg))

    @classmethod
    def check_start(cls, cfg: CfgNode, training: bool) -> None:
        check_split_count(cfg)
        super().check_start(cfg, training)
        if training:
            vectors, node = load_vectors(cfg), cfg.MODEL.MASK_FORMER
            absent = vectors.problem if vectors.vectors is None else None
            logits = None if node.SEEN_CLS_ONLY else node.CLS_SLICE
            check_second_stage(absent, unseen_classes(cfg), cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, logits)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        check_split_count(cfg)
        node = cfg.MODEL.MASK_FORMER
        if node.GENERATOR not in GENERATORS:
            raise UserError(
                f"MODEL.MASK_FORMER.GENERATOR is {node.GENERATOR!r}, but must be one of {', '.join(GENERATORS)}."
            )
        if node.GENERATOR == "mlp" and node.TRANS_NUM_LAYER < 1:
            raise UserError(
                f"MODEL.MASK_FORMER.TRANS_NUM_LAYER is {node.TRANS_NUM_LAYER}, but the generator 'mlp' needs at least "
                "one hidden layer."
            )
        return {
            **super().from_config(cfg),
            "generator": node.GENERATOR,
            "disentangle": node.DISENTANGLE,
            "align": node.ALIGN,
            "hidden_dim": node.HIDDEN_DIM,
            "class_vectors": load_vectors(cfg),
            "unseen_index": unseen_classes(cfg),
            "relation_over_seen": node.VEC_PATH is not None,
            "num_choose": node.NUM_CHOOSE,
            "class_weight_unseen": node.CLASS_ECO,
            "no_object_weight": node.NO_OBJECT_WEIGHT,
            "classification_weight": node.GENERATOR_CLS_WEIGHT,
            "structure_weights": StructureWeights(node.STRUCTURE_WEIGHT, node.WEIGHT_1, node.WEIGHT_2, node.WEIGHT_3),
            "cls_slice": node.CLS_SLICE,
            "seen_cls_only": node.SEEN_CLS_ONLY,
            "drop_rate": node.DROP_OUT_ED,
            "trans_num_layer": node.TRANS_NUM_LAYER,
            "trans_num_heads": node.NHEADS,
            "trans_drop_rate": node.TRANS_DROP_RATE,
            "trans_num_query": node.TRANS_MEMORY_NUM_QUERY,
            "noise": node.NOISE,
            "segmenter_cache": node.SEGMENTER_CACHE,
            "random_segmenter": node.RANDOM_SEGMENTER,
        }

    # ---- what the training recipe asks for

    def begin_second_stage(self) -> None:
        """Check that training is possible, and freeze the segmenter for good. Called before anything is read.

        Raises:
            UserError: class vectors are missing; no class is unseen; a seen class would have no logit.
        """
        absent = self.vectors_problem if self.class_vectors is None else None
        logits = None if self.seen_cls_only else self.cls_slice
        check_second_stage(absent, self.unseen_index.tolist(), self.sem_seg_head.num_classes, logits)
        for part in (self.backbone, self.sem_seg_head):
            part.requires_grad_(False)
        self.segmenter_frozen = True
        self.train(self.training)

    def learn_from(self, weights: dict[str, Tensor], score: float, max_overlap: float) -> None:
        """Self-training: take the classifier of a first model with the same segmenter as a source of pseudo labels.

        Args:
            weights: state dict of the first model.

        Raises:
            UserError: see ``Teacher.of``.
        """
        self.teacher = Teacher.of(weights, self.new_fc, score, max_overlap)

    def train(self, mode: bool = True) -> "PADing":
        """As every module's; but a frozen segmenter stays in evaluation mode, so that no running statistics change."""
        super().train(mode)
        if self.segmenter_frozen:
            self.backbone.eval()
            self.sem_seg_head.eval()
        return self

    def generator_parameters(self) -> list[nn.Parameter]:
        """Everything that the generator step trains, in the published order."""
        modules = [getattr(self, name) for name in GENERATOR_SIDE]
        return [p for module in modules if module is not None for p in module.parameters()]

    def classifier_parameters(self) -> list[nn.Parameter]:
        return list(self.new_fc.parameters())

    # ---- forward

    def segment(self, images: ImageList) -> dict:
        if self.cache is None or not self.segmenter_frozen:
            return super().segment(images)
        return self.cache(images.tensor, lambda: super(PADing, self).segment(images))

    def forward(
        self,
        batched_inputs: list[dict] | None,
        *,
        real_embeddings: Tensor | None = None,
        target_classes: Tensor | None = None,
    ):
        """One of three things, all through here so that ``DistributedDataParallel`` sees every step.

        - Training, with images: the generator step, see ``forward_train_generator``.
        - Training, with ``None`` and what the generator step returned: the classifier step, see
          ``forward_train_classifier``.
        - Evaluation: results, see ``SegmenterBase.infer``.
        """
        if not self.training:
            images = self.preprocess(batched_inputs)
            outputs = self.segment(images)
            return self.infer(self.new_fc(outputs["pred_embed"]), outputs["pred_masks"], batched_inputs, images)
        if batched_inputs is None:
            return self.forward_train_classifier(real_embeddings, target_classes)
        return self.forward_train_generator(batched_inputs)

    def forward_train_generator(self, batched_inputs: list[dict]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Loss of the generator side (PADing, Sec. 3.2 and 3.3), and what the classifier step needs.

        Args:
            batched_inputs: for each image ``image`` (3, H, W) and ``instances`` with ``gt_classes``, ``gt_masks``.

        Returns:
            ``{"generate_loss": scalar}``; embeddings of all queries (B, Q, d); their classes (B, Q) int64, C where a
            query is matched with nothing.
        """
        terms, embeddings, target_classes = self.generator_terms(batched_inputs)
        return {"generate_loss": terms["generate_loss"]}, embeddings, target_classes

    def generator_terms(self, batched_inputs: list[dict]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """As ``forward_train_generator``, with every term of the loss; see ``PADing.generation.generator_terms``."""
        if not self.segmenter_frozen:
            self.begin_second_stage()
        embeddings, target_classes, labels, matched = self.match(batched_inputs)
        terms = generator_terms(
            self._parts(),
            self.structure_weights,
            align=self.align,
            classification=self.classification_weight,
            real=embeddings[matched],
            class_logit=self.seen_row[labels] if self.seen_cls_only else labels,
            logit_columns=self.seen_index if self.seen_cls_only else slice(None, self.cls_slice),
            class_row=self.class_row[labels],
            class_vectors=self.class_vectors,
            unseen_vectors=self.unseen_vectors,
        )
        return terms, embeddings, target_classes

    @torch.no_grad()
    def match(self, batched_inputs: list[dict]) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Run the frozen segmenter and match its queries with the targets.

        Returns:
            query embeddings (B, Q, d); classes (B, Q), for unmatched queries C or, in a second round, a pseudo label;
            labels (M,) of the matched queries; their (image, query) indices.
        """
        images = self.preprocess(batched_inputs)
        outputs = self.segment(images)
        targets = self.prepare_targets(self.instances_of(batched_inputs), images)
        target_classes, labels, matched = self.criterion.match(outputs, targets)
        if self.teacher is not None:
            target_classes = self.teacher.relabel(target_classes, outputs, targets, self.unseen_index)
        return outputs["pred_embed"], target_classes, labels, matched

    def forward_train_classifier(self, real_embeddings: Tensor, target_classes: Tensor) -> dict[str, Tensor]:
        """Loss of the classifier on real query embeddings and generated ones of unseen classes (PADing, Sec. 3.1).

        Args:
            real_embeddings: (B, Q, d).
            target_classes: (B, Q) int64.

        Returns:
            ``{"dis_loss": scalar}``; only ``new_fc`` receives a gradient.
        """
        unseen = len(self.unseen_index)
        chosen = torch.randperm(unseen)[: self.num_choose].to(self.unseen_index.device)
        with torch.no_grad():
            queries = self.fc_projection(self.unseen_vectors)[chosen]
            fake = generate(self.generator, self._primitives(), queries)
        embeddings = torch.cat([real_embeddings.flatten(0, 1), fake])
        labels = torch.cat([target_classes.flatten(), self.unseen_index[chosen]])
        return {"dis_loss": classifier_loss(self.new_fc(embeddings), labels, self.class_weight)}

    def _primitives(self) -> Tensor | None:
        return None if self.dict_feature is None else self.dict_feature.weight

    def _parts(self) -> GeneratorParts:
        return GeneratorParts(
            projection=self.fc_projection,
            primitives=self._primitives(),
            generator=self.generator,
            related=self.projection_related,
            unrelated=self.projection_unrelated,
            relation=self.relation,
            decoder=self.decoder,
            classifier=self.new_fc,
        )

    # ---- inference on sets that show unseen classes only

    def set_test_metadata(self, metadata: MetadataCatalog) -> None:
        """Tell which data set comes next: one that shows unseen classes only restricts the answers to these.

        Raises:
            UserError: as ``SegmenterBase.set_test_metadata``.
        """
        super().set_test_metadata(metadata)
        self.unseen_only = metadata.get("subset") == "unseen"
        self.label_offset = metadata.get("label_offset", 0)

    def infer(self, class_logits: Tensor, mask_logits: Tensor, batched_inputs: list[dict], images) -> list[dict]:
        if self.unseen_only:
            class_logits = class_logits.index_fill(2, self.seen_index, float("-inf"))
            # The classes of such a set may be counted from its first unseen one.
            class_logits = class_logits[..., self.label_offset :]
        return super().infer(class_logits, mask_logits, batched_inputs, images)

    # ---- weights of other stages

    def harmless_weights(self) -> tuple[str, ...]:
        """Without class vectors their width is a guess, and what projects them is not used."""
        return ("fc_projection.",) if self.class_vectors is None else ()

    @classmethod
    def explain_named_weights(cls, cfg: CfgNode) -> str:
        """As ``explain_missing_weights`` for a training, by the name ``MODEL.WEIGHTS`` alone: nothing is loaded."""
        return "" if cfg.MODEL.MASK_FORMER.RANDOM_SEGMENTER else explain_name(cfg.MODEL.WEIGHTS)

    def explain_wrong_shapes(self, keys: Sequence[str]) -> str:
        """Other sizes of the class heads alone mean other classes, which stage 2 has more of than stage 1."""
        if not all("class_embed" in key or "new_fc" in key for key in keys):
            return ""
        return (
            "The file was trained with another number of classes. Weights of stage 1 become weights of stage 2 with: "
            f"{CONVERT}. Otherwise choose the config of the file's split."
        )

    @classmethod
    def further_weights(cls, cfg: CfgNode) -> dict[str, str]:
        """The first model of a self-training."""
        return {"MODEL.MASK_FORMER.SELF_TRAINING.WEIGHTS": cfg.MODEL.MASK_FORMER.SELF_TRAINING.WEIGHTS}

    def explain_missing_weights(self, missing: list[str], found: list[str]) -> str:
        if self.random_segmenter:
            return ""
        learned = {name for name, _ in self.named_parameters()}
        return explain_unfit_weights(learned.intersection(missing), found, training=self.segmenter_frozen)
