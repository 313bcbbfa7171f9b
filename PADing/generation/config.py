"""The config keys of PADing, beyond those of the host (``PADing.config``), and which values they may have.

``config_keys.yaml`` says what they mean.
"""

from collections.abc import Iterator

from detectron2.config import CfgNode

from PADing.config_check import Joint
from PADing.config_rules import Rule, above_0_to_1, at_least, below_one, from_to
from PADing.errors import UserError
from PADing.generation.feature_generator import generator_type


def add_config(cfg: CfgNode) -> None:
    """Add PADing's keys to ``cfg``, in place. The host's ``VEC_PATH`` and ``TRANS_NUM_LAYER`` are used too."""
    cfg.SOLVER.GENERATOR_LR = 0.0002
    cfg.MODEL.MASK_FORMER.update(
        GENERATOR="primitive", DISENTANGLE=True, ALIGN=True,
        TRANS_MEMORY_NUM_QUERY=400, TRANS_DROP_RATE=0.1, NOISE=True, DROP_OUT_ED=0.2,
        CLASS_ECO=5.0, NUM_CHOOSE=17, FEATURES_PER_CLASS=1, GENERATOR_CLS_WEIGHT=0.001,
        STRUCTURE_WEIGHT=0.0001, WEIGHT_1=1.0, WEIGHT_2=1.0, WEIGHT_3=1.0,
        CLS_SLICE=156, SEEN_CLS_ONLY=False, NEW_CLASS_SHARE=0.3,
        SELF_TRAINING=CfgNode({"WEIGHTS": "", "SCORE": 0.5, "MAX_OVERLAP": 0.1}),
        RANDOM_SEGMENTER=False, SEGMENTER_CACHE="",
    )  # fmt: skip


def _generator(cfg: CfgNode) -> Iterator[str]:
    try:
        generator_type(cfg)
    except UserError as error:
        yield str(error)


CONFIG_RULES = [
    Joint("model", _generator),
    Rule("model", "MODEL.MASK_FORMER", at_least(1), "TRANS_MEMORY_NUM_QUERY NUM_CHOOSE FEATURES_PER_CLASS CLS_SLICE"),
    Rule("model", "MODEL.MASK_FORMER", below_one, "TRANS_DROP_RATE DROP_OUT_ED"),
    Rule("model", "MODEL.MASK_FORMER", at_least(0), "CLASS_ECO GENERATOR_CLS_WEIGHT STRUCTURE_WEIGHT"),
    Rule("model", "MODEL.MASK_FORMER", at_least(0), "WEIGHT_1 WEIGHT_2 WEIGHT_3"),
    Rule("model", "MODEL.MASK_FORMER", above_0_to_1, "NEW_CLASS_SHARE", "1: rows stay as they are fitted"),
    Rule("train", "MODEL.MASK_FORMER.SELF_TRAINING", from_to(0, 1), "SCORE MAX_OVERLAP"),
    Rule("train", "SOLVER", at_least(0), "GENERATOR_LR"),
]
