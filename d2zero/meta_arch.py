"""Mask2Former that answers with the classes a test set asks for, in one of D2Zero's three ways."""

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Instances
from torch import Tensor

from d2zero.texts import ClassTexts, check_config, check_protocol, training_classes
from d2zero.unseen_loss import UnseenConstrainedCriterion
from PADing.meta_arch import MaskFormer
from PADing.meta_arch.maps import Maps
from PADing.meta_arch.results import best_pairs, make_instances
from PADing.modeling import SetCriterion


@META_ARCH_REGISTRY.register()
class D2Zero(MaskFormer):
    """D2Zero: Mask2Former whose decoder classifies by texts. Training is Mask2Former's; inference has three ways:

    generalized (GZSIS): seen and unseen classes compete for the instances of an image;
    copy-paste: half of the instances are kept for seen, half for unseen classes;
    not generalized (ZSIS): unseen classes alone compete.

    Args:
        texts: class embeddings. metadata_test: of the test set to begin with; see :meth:`set_test_metadata`.
        generalized, copy_paste: which way.
        inverse_temperature: class logits are multiplied with it.
        common: see :class:`SegmenterBase`.
    """

    @configurable
    def __init__(
        self,
        *,
        texts: ClassTexts,
        metadata_test,
        generalized: bool,
        copy_paste: bool,
        inverse_temperature: float,
        **common,
    ) -> None:
        super().__init__(**common)
        self.texts = texts
        self.generalized, self.copy_paste, self.inverse_temperature = generalized, copy_paste, inverse_temperature
        self.set_test_metadata(metadata_test)

    def explain_missing_weights(self, missing: list[str], found: list[str]) -> str:
        """Weights of PADing's second stage fit in part, but its training is not in that part."""
        if any(key.removeprefix("module.").startswith("new_fc.") for key in found):
            return (
                "MODEL.WEIGHTS belongs to PADing (it holds new_fc), of which D2Zero has no use. Start from weights of "
                "train_net_pretrain.py as they are, not converted; to evaluate, name a file that D2Zero has written."
            )
        return ""

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        test = cfg.MODEL.MASK_FORMER.TEST
        return {
            **super().from_config(cfg),
            "boxes_from_masks": True,
            "texts": ClassTexts.from_config(cfg),
            "metadata_test": MetadataCatalog.get(cfg.DATASETS.TEST[0]),
            "generalized": test.GENERALIZED,
            "copy_paste": test.COPY_PASTE,
            "inverse_temperature": test.SOFTMAX_TEMPERATURE,
        }

    @classmethod
    def check_start(cls, cfg: CfgNode, training: bool) -> None:
        """Also read the class embeddings, of which evaluation needs those of the test sets' classes."""
        super().check_start(cfg, training)
        texts = ClassTexts.from_config(cfg)
        for name in cfg.DATASETS.TEST:
            texts.vectors(texts.answers(MetadataCatalog.get(name)).names)

    @classmethod
    def check_test_sets(cls, cfg: CfgNode) -> None:
        """Other rules than the host's, because the outputs are those of the texts; see ``check_config``."""
        check_config(cfg)

    @classmethod
    def build_criterion(cls, cfg: CfgNode) -> SetCriterion:
        """Mask2Former's criterion, with the unseen-constrained loss when it has a weight."""
        d2zero = cfg.MODEL.D2ZERO
        if not d2zero.UNSEEN_LOSS_WEIGHT:
            return super().build_criterion(cfg)
        texts = ClassTexts.from_config(cfg)
        seen, unseen = (texts.vectors(names) for names in training_classes(cfg))
        temperature, gumbel = d2zero.UNSEEN_LOSS_TEMPERATURE, d2zero.UNSEEN_LOSS_GUMBEL
        return UnseenConstrainedCriterion(cfg, seen=seen, unseen=unseen, temperature=temperature, gumbel=gumbel)

    def set_test_metadata(self, metadata) -> None:
        """Answer from now on with the classes of a test set.

        Raises:
            UserError: the set does not belong to the setting (GZSIS or ZSIS), or classes have no embedding.
        """
        check_protocol(metadata, self.generalized)
        self.answers = self.texts.answers(metadata)
        self.sem_seg_head.predictor.set_test_texts(self.texts.vectors(self.answers.names))

    def instance_inference(self, mask_cls: Tensor, mask_pred: Tensor | Maps) -> Instances:
        """Instances of an image, see :meth:`SegmenterBase.select_instances`.

        Args:
            mask_cls: (Q, K + 1) class logits of ``answers.names`` and the background. mask_pred: (Q, H, W) logits.
        """
        logits, k = self.inverse_temperature * mask_cls, self.test_topk_per_image
        seen, unseen = self.answers.seen, self.answers.unseen
        if not self.generalized:
            prob = logits[:, [*unseen, -1]].softmax(-1)[:, :-1]
            return self.select_instances(prob, mask_pred, k)
        prob = logits.softmax(-1)[:, :-1]
        if not self.copy_paste:
            return self.select_instances(prob, mask_pred, k)
        groups = []
        for columns, share in ((seen, k - k // 2), (unseen, k // 2)):
            columns = torch.tensor(columns, dtype=torch.int64, device=prob.device)
            scores, queries, classes = best_pairs(prob[:, columns], share)
            groups.append((scores, queries, columns[classes]))
        scores, queries, classes = (torch.cat(parts) for parts in zip(*groups, strict=True))
        return make_instances(scores, queries, classes, mask_pred, self.boxes_from_masks)
