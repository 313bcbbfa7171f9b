"""The config keys of D2Zero, beyond those of the host (``PADing.config``); ``config_keys.yaml`` says what they mean."""

from detectron2.config import CfgNode

from PADing.config_check import multiple
from PADing.config_rules import Rule, above, at_least, below_one, one_of


def add_config(cfg: CfgNode) -> None:
    """Add D2Zero's keys to ``cfg``, in place. The host's ``VEC_PATH`` and ``TRANS_NUM_LAYER`` are used too."""
    node = cfg.MODEL.MASK_FORMER
    node.TRANS_DROP_OUT_RATE = 0.1
    node.TEST.update(GENERALIZED=True, COPY_PASTE=False, SOFTMAX_TEMPERATURE=0.2)
    cfg.MODEL.D2ZERO = CfgNode()
    cfg.MODEL.D2ZERO.update(
        SEMANTIC_DIM=512, INPUT_CONDITIONAL=True, BACKGROUND="image",
        BACKGROUND_PER_IMAGE=False, UNIFY_TEXTS=False,
        UNSEEN_LOSS_WEIGHT=0.0, UNSEEN_LOSS_TEMPERATURE=0.1, UNSEEN_LOSS_GUMBEL=True, UNSEEN_LOSS_AMONG="unseen",
    )  # fmt: skip


# Which values make sense; see PADing.config_check.
CONFIG_RULES = [
    Rule("model", "MODEL.MASK_FORMER", below_one, "TRANS_DROP_OUT_RATE"),
    Rule("model test", "MODEL.MASK_FORMER.TEST", above(0), "SOFTMAX_TEMPERATURE"),
    Rule("model", "MODEL.D2ZERO", at_least(1), "SEMANTIC_DIM"),
    multiple("MODEL.D2ZERO.SEMANTIC_DIM", "MODEL.MASK_FORMER.NHEADS"),
    Rule("model", "MODEL.D2ZERO", one_of("image", "learned"), "BACKGROUND"),
    Rule("train", "MODEL.D2ZERO", at_least(0), "UNSEEN_LOSS_WEIGHT"),
    Rule("train", "MODEL.D2ZERO", above(0), "UNSEEN_LOSS_TEMPERATURE"),
    Rule("train", "MODEL.D2ZERO", one_of("unseen", "all"), "UNSEEN_LOSS_AMONG"),
]
