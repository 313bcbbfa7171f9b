"""D2Zero's meta-architecture: Mask2Former that predicts the classes of the evaluation set, in one of three ways."""

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY

from d2zero.decoder import MultiScaleMaskedD2ZeroDecoder
from d2zero.protocol import (
    Candidates,
    candidates_of,
    check_config,
    check_protocol,
    own_test_metadata,
    shows_all_embeddings,
    training_classes,
)
from d2zero.unseen_loss import UnseenConstrainedCriterion
from PADing.class_space import ClassSpace
from PADing.meta_arch import MaskFormer
from PADing.meta_arch.class_embeddings import ClassEmbeddings
from PADing.meta_arch.instance_rule import InstanceRule
from PADing.meta_arch.vocabulary import Vocabulary


@META_ARCH_REGISTRY.register()
class D2Zero(MaskFormer):
    """Mask2Former whose decoder classifies by class embeddings. It has three ways of inference.

    generalized (GZSIS): seen and unseen classes compete for the instances of an image;
    copy-paste: half of the instances are of seen classes, half of unseen classes;
    not generalized (ZSIS): only unseen classes compete.

    Args:
        metadata_test: of the first evaluation set; see :meth:`set_test_metadata`.
        show_all: give the classifier the embeddings of seen classes even on evaluation sets of unseen classes.
        generalized, copy_paste: the way of inference.
        inverse_temperature: factor of class logits.
        common: see :class:`SegmenterBase`.
    """

    @configurable
    def __init__(
        self,
        *,
        metadata_test: Any,
        show_all: bool,
        generalized: bool,
        copy_paste: bool,
        inverse_temperature: float,
        **common,
    ) -> None:
        super().__init__(**common)
        self.show_all = show_all
        self.generalized, self.copy_paste, self.inverse_temperature = generalized, copy_paste, inverse_temperature
        self.set_test_metadata(metadata_test)

    def explain_missing_weights(self, missing: list[str], found: list[str]) -> str:
        """Refuse weights of PADing's stage 2: the part that would fit is the frozen segmenter."""
        if any(key.removeprefix("module.").startswith("new_fc.") for key in found):
            return (
                "MODEL.WEIGHTS belongs to PADing (it holds new_fc), which D2Zero does not use. To train, name weights "
                "of train_net_pretrain.py that are not converted; to evaluate, name a checkpoint of D2Zero."
            )
        return ""

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """The host's arguments and D2Zero's own; the criterion uses the embeddings that the decoder has read."""
        test, d2zero, common = cfg.MODEL.MASK_FORMER.TEST, cfg.MODEL.D2ZERO, super().from_config(cfg)
        if d2zero.UNSEEN_LOSS_WEIGHT:
            embeddings = common["sem_seg_head"].predictor.class_embeddings
            seen, unseen = (embeddings.of(names) for names in training_classes(cfg))
            options = {"temperature": d2zero.UNSEEN_LOSS_TEMPERATURE, "gumbel": d2zero.UNSEEN_LOSS_GUMBEL}
            options["among_all"] = d2zero.UNSEEN_LOSS_AMONG == "all"
            common["criterion"] = UnseenConstrainedCriterion(cfg, seen=seen, unseen=unseen, **options)
        return {
            **common,
            "boxes_from_masks": True,
            "show_all": shows_all_embeddings(cfg),
            "metadata_test": own_test_metadata(cfg),
            "generalized": test.GENERALIZED,
            "copy_paste": test.COPY_PASTE,
            "inverse_temperature": test.SOFTMAX_TEMPERATURE,
        }

    @classmethod
    def check_start(cls, cfg: CfgNode, training: bool) -> None:
        """Also check that the class embeddings have the classes of all evaluation sets."""
        super().check_start(cfg, training)
        embeddings = ClassEmbeddings.of_config(cfg, ClassSpace.of_config(cfg))
        for metadata in filter(lambda m: not m.get("evaluation_only"), map(MetadataCatalog.get, cfg.DATASETS.TEST)):
            embeddings.of(candidates_of(metadata, shows_all_embeddings(cfg)).names)

    @classmethod
    def check_test_sets(cls, cfg: CfgNode) -> None:
        """Check by D2Zero's own rules (``check_config``), because the outputs follow the evaluation set."""
        check_config(cfg)

    def set_test_metadata(self, metadata: Any) -> None:
        """Predict the classes of an evaluation set from now on; of a set of other classes, a vocabulary tells them.

        Raises:
            UserError: the set does not fit the setting (GZSIS or ZSIS), or classes have no embedding.
        """
        self.vocabulary = None
        if metadata.get("evaluation_only"):
            return
        check_protocol(metadata, self.generalized)
        self.own_candidates = self.candidates = candidates_of(metadata, self.show_all)
        self.decoder.set_test_classes(self.candidates.names)

    def output_names(self) -> tuple[str, ...]:
        """The classes that compete on the evaluation set."""
        return self.own_candidates.names

    def set_vocabulary(self, vocabulary: Vocabulary | None) -> None:
        """Classify by the class embeddings of a vocabulary; all its classes compete."""
        if vocabulary is None:
            self.candidates = self.own_candidates
            self.decoder.set_test_classes(self.candidates.names)
            return
        assert vocabulary.embeddings is not None  # D2Zero cannot be built without class embeddings
        space = vocabulary.space
        self.candidates = Candidates(space.class_names, tuple(sorted(space.seen)), tuple(sorted(space.unseen)))
        self.decoder.text_features_test = vocabulary.embeddings.to(self.decoder.text_features)

    @property
    def decoder(self) -> MultiScaleMaskedD2ZeroDecoder:
        """The part that knows the class embeddings."""
        predictor = self.sem_seg_head.predictor
        assert isinstance(predictor, MultiScaleMaskedD2ZeroDecoder)
        return predictor

    def instance_rule(self) -> InstanceRule:
        """The best pairs of all classes, half of them unseen (copy-paste), or of unseen classes alone (ZSIS)."""
        k, scale = self.test_topk_per_image, self.inverse_temperature
        seen, unseen = self.candidates.seen, self.candidates.unseen
        if not self.generalized and self.vocabulary is None:
            return InstanceRule(groups=((k, None),), columns=unseen, scale=scale)
        if not self.copy_paste or not seen or not unseen:
            return InstanceRule(groups=((k, None),), scale=scale)
        return InstanceRule(groups=((k - k // 2, seen), (k // 2, unseen)), scale=scale)
