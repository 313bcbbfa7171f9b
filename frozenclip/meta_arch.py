"""FC-CLIP's meta-architecture: Mask2Former on a frozen CLIP encoder, with the ensemble of two classifiers."""

import logging
import os
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import ImageList
from torch import Tensor

from frozenclip.backbone import NAME_KEY, WEIGHTS_KEY, FrozenCLIPBackbone, clip_of, names_weights
from frozenclip.classes import evaluation_table, trained_names, vocabulary_table
from frozenclip.decoder import MultiScaleMaskedCLIPDecoder
from frozenclip.ensembled import ensembled
from frozenclip.text import clip_text
from PADing.class_space import ClassSpace
from PADing.errors import UserError
from PADing.meta_arch import MaskFormer
from PADing.meta_arch.vocabulary import Vocabulary, own_classes

logger = logging.getLogger(__name__)


@META_ARCH_REGISTRY.register()
class FrozenCLIP(MaskFormer):
    """Mask2Former whose backbone is CLIP's frozen image encoder ("Convolutions Die Hard", Yu et al., 2023).

    In training, queries are classified by the decoder (:class:`MultiScaleMaskedCLIPDecoder`). In inference, CLIP also
    classifies each mask by its mean feature, and both are joined by :func:`geometric_ensemble`. Outputs follow the
    classes of the evaluation set, whichever they are, as long as they have text embeddings.

    Args:
        alpha, beta: exponents of CLIP's classifier, for classes that the training has seen and for the others.
        cfg: the config.
        common: see :class:`SegmenterBase`.
    """

    restricts_to_unseen = True
    backbone: FrozenCLIPBackbone

    @configurable
    def __init__(self, *, alpha: float, beta: float, cfg: CfgNode, **common) -> None:
        super().__init__(**common)
        self.exponents, self.cfg = (alpha, beta), cfg
        self.names_weights, self._warned, self._loaded = names_weights(cfg), False, False
        self.test_metadata: Any = self.metadata
        if cfg.DATASETS.TEST:
            self.set_test_metadata(MetadataCatalog.get(cfg.DATASETS.TEST[0]))

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """The host's arguments and this method's own."""
        node = cfg.MODEL.FROZENCLIP
        own = {"alpha": node.ALPHA, "beta": node.BETA, "cfg": cfg}
        return {**super().from_config(cfg), **own}

    # ---- the contract

    @classmethod
    def check_test_sets(cls, cfg: CfgNode) -> None:
        """UserError if a class of an evaluation set has no text embedding, or the text is not of the same CLIP."""
        text = clip_text(cfg)
        for metadata in filter(lambda m: not m.get("evaluation_only"), map(MetadataCatalog.get, cfg.DATASETS.TEST)):
            text.of(ClassSpace.of(metadata).class_names)

    @classmethod
    def text_source(cls, cfg: CfgNode) -> str:
        """The folder or file of CLIP, whose text encoder makes vectors of new words."""
        path = cfg.MODEL.FROZENCLIP.PRETRAINED
        return clip_of(cfg).folder or (path if os.path.isfile(path) else "")

    @classmethod
    def further_weights(cls, cfg: CfgNode) -> dict[str, str]:
        """The file of CLIP's weights, if the config names a file."""
        path = cfg.MODEL.FROZENCLIP.PRETRAINED
        return {WEIGHTS_KEY: path} if "/" in path else {}

    def set_test_metadata(self, metadata: Any) -> None:
        """Predict the classes of an evaluation set from now on; UserError if some have no text embedding.

        A vocabulary tells the classes of a set of other classes.
        """
        if metadata.get("evaluation_only"):
            self.vocabulary = None
            return
        self.decoder.test_classes = evaluation_table(self.cfg, self.decoder.text, metadata).to(self.device)
        self.vocabulary, self.test_metadata = None, metadata

    def output_names(self) -> tuple[str, ...]:
        """The classes of the evaluation set."""
        return ClassSpace.of(self.test_metadata).class_names

    def set_vocabulary(self, vocabulary: Vocabulary | None) -> None:
        """Classify by the text embeddings of a vocabulary."""
        if vocabulary is None:
            self.set_test_metadata(self.test_metadata)
            return
        own = own_classes(self.cfg, self.test_metadata)
        self.decoder.test_classes = vocabulary_table(vocabulary, own, trained_names(self.cfg)).to(self.device)

    def _load_from_state_dict(self, state_dict: Mapping, prefix: str, *args, **kwargs) -> None:
        self._loaded = True
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    # ---- inference

    @property
    def decoder(self) -> MultiScaleMaskedCLIPDecoder:
        """The part that knows the text embeddings."""
        predictor = self.sem_seg_head.predictor
        assert isinstance(predictor, MultiScaleMaskedCLIPDecoder)
        return predictor

    @property
    def things(self) -> frozenset[int]:
        """The outputs that are things, among the classes of the evaluation set or of a vocabulary."""
        return (ClassSpace.of(self.test_metadata) if self.vocabulary is None else self.vocabulary.space).things

    def predict(self, images: ImageList) -> tuple[Tensor, Tensor]:
        """Log probabilities (B, Q, K + 1) of the ensemble, and mask logits (B, Q, h, w)."""
        self._check_weights()
        if not images.image_sizes:
            why = "it leaves out the padding of each image, whose size an exported model does not know"
            raise UserError(f"FrozenCLIP cannot be exported: {why}. Export a model of another method.")
        features = self.backbone(images.tensor)
        outputs = self.sem_seg_head(features)
        padded = images.tensor.shape[-2], images.tensor.shape[-1]
        sizes = [(size[0], size[1]) for size in images.image_sizes]
        masks, decoder = outputs["pred_masks"], self.decoder
        found = ensembled(
            outputs["pred_logits"], masks, features["res5"], self.backbone.encoder, decoder.test_classes,
            self.exponents, padded, sizes,
        )  # fmt: skip
        return found, masks

    def segment(self, images: ImageList) -> dict:
        """Run backbone and head."""
        self._check_weights()
        return super().segment(images)

    def _check_weights(self) -> None:
        """Refuse to run a random encoder beside weights of a checkpoint; in an untrained model, warn once."""
        if self.backbone.encoder.loaded or self._warned:
            return
        label = self.backbone.encoder.clip.label
        if self._loaded and self.names_weights:
            raise UserError(
                f"CLIP's image encoder ({label}) has random weights: MODEL.WEIGHTS does not hold it. Name a checkpoint "
                "of FrozenCLIP; to train one, start with train_net.py, which loads CLIP's weights."
            )
        logger.warning(
            "THE IMAGE ENCODER OF CLIP %s HAS RANDOM WEIGHTS, so results mean nothing. For other purposes than tests, "
            "name its weights: %s TAG_OR_FILE, or a folder with weights in %s.", label, WEIGHTS_KEY, NAME_KEY,
        )  # fmt: skip
        self._warned = True
