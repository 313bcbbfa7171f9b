"""The config keys of D2Zero, beyond those of the host (``PADing.config``)."""

from detectron2.config import CfgNode

from PADing.config_check import multiple
from PADing.config_rules import Rule, above, at_least, below_one, one_of


def add_config(cfg: CfgNode) -> None:
    """Add D2Zero's keys to ``cfg``, in place. The host's ``VEC_PATH`` and ``TRANS_NUM_LAYER`` are used too."""
    node = cfg.MODEL.MASK_FORMER
    # Dropout inside the classifier.
    node.TRANS_DROP_OUT_RATE = 0.1
    # True: seen and unseen classes compete (GZSIS). False: unseen classes only (ZSIS); needs an evaluation set of such.
    node.TEST.GENERALIZED = True
    # Keep half of TEST.DETECTIONS_PER_IMAGE for seen and half for unseen labels.
    node.TEST.COPY_PASTE = False
    # Class logits are multiplied with this before the softmax of a test.
    node.TEST.SOFTMAX_TEMPERATURE = 0.2

    d2zero = cfg.MODEL.D2ZERO = CfgNode()
    # Width of the space where queries and class embeddings are compared.
    d2zero.SEMANTIC_DIM = 512
    # False: class embeddings and background are compared with the queries right after projection and normalisation,
    # not as centres that have looked at the image (a plain semantic classifier).
    d2zero.INPUT_CONDITIONAL = True
    # What stands for the background: "image", a prototype from the image's own background; "learned", one vector for
    # all images.
    d2zero.BACKGROUND = "image"
    # An image without any background pixel takes all its pixels for background. As published, that happens only when
    # no image of the batch has one; True decides for each image, so a result does not depend on its neighbours.
    d2zero.BACKGROUND_PER_IMAGE = False
    # As published, a model with VEC_PATH shows the classifier seen and unseen classes even when only unseen ones may be
    # predicted, and one without shows it the evaluation set's classes. True: always the evaluation set's classes.
    d2zero.UNIFY_TEXTS = False
    # The unseen-constrained loss of the paper, which its public code left out: weight relative to the classification
    # loss (0: off), temperature of the similarity between seen and unseen classes, and whether the pseudo labels are
    # drawn (Gumbel) or always the most similar class.
    d2zero.UNSEEN_LOSS_WEIGHT = 0.0
    d2zero.UNSEEN_LOSS_TEMPERATURE = 0.1
    d2zero.UNSEEN_LOSS_GUMBEL = True


# Which values make sense; see PADing.config_check.
CONFIG_RULES = [
    Rule("model", "MODEL.MASK_FORMER", below_one, "TRANS_DROP_OUT_RATE"),
    Rule("model test", "MODEL.MASK_FORMER.TEST", above(0), "SOFTMAX_TEMPERATURE"),
    Rule("model", "MODEL.D2ZERO", at_least(1), "SEMANTIC_DIM"),
    multiple("MODEL.D2ZERO.SEMANTIC_DIM", "MODEL.MASK_FORMER.NHEADS"),
    Rule("model", "MODEL.D2ZERO", one_of("image", "learned"), "BACKGROUND"),
    Rule("train", "MODEL.D2ZERO", at_least(0), "UNSEEN_LOSS_WEIGHT"),
    Rule("train", "MODEL.D2ZERO", above(0), "UNSEEN_LOSS_TEMPERATURE"),
]
