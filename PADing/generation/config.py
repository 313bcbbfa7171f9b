"""The config keys of PADing, beyond those of the host (``PADing.config``), and which values they may have."""

from collections.abc import Iterator

from detectron2.config import CfgNode

from PADing.config_check import Joint
from PADing.config_rules import Rule, at_least, below_one, from_to
from PADing.errors import UserError
from PADing.generation.feature_generator import generator_type


def add_config(cfg: CfgNode) -> None:
    """Add PADing's keys to ``cfg``, in place. The host's ``VEC_PATH`` and ``TRANS_NUM_LAYER`` are used too."""
    # Learning rate of the generator side (Adam); BASE_LR is that of the classifier (SGD).
    cfg.SOLVER.GENERATOR_LR = 0.0002
    cfg.MODEL.MASK_FORMER.update(
        # What makes features of class embeddings: "primitive", PADing's generator; "mlp", baselines/mlp_generator;
        # "linear", baselines/projection; or the name of a generator of your own.
        GENERATOR="primitive",
        # False: no semantic-related and -unrelated parts; alignment and relation terms work on whole features, and the
        # unrelated and reconstruction terms are left out.
        DISENTANGLE=True,
        # False: without the three alignment terms.
        ALIGN=True,
        # The generator's primitives, dropout, and Gaussian noise (added in each layer; "mlp": beside the input).
        TRANS_MEMORY_NUM_QUERY=400, TRANS_DROP_RATE=0.1, NOISE=True,
        # Dropout of the disentangling encoders and the reconstructing decoder.
        DROP_OUT_ED=0.2,
        # Weight of unseen classes, and number of unseen classes drawn, in each classifier step.
        CLASS_ECO=5.0, NUM_CHOOSE=17,
        # Factor of the generator's small classification term; published as a constant. It alone ties what is generated
        # for a class to that class, and a short training needs more of it.
        GENERATOR_CLS_WEIGHT=0.001,
        # Structure loss: common factor, then alignment + unrelated, relation, reconstruction.
        STRUCTURE_WEIGHT=0.0001, WEIGHT_1=1.0, WEIGHT_2=1.0, WEIGHT_3=1.0,
        # Logits that take part in the generator's small classification term: the first CLS_SLICE ones, as published, or
        # only those of seen classes, also when the slice would cut off some of them.
        CLS_SLICE=156, SEEN_CLS_ONLY=False,
        # Self-training: weights of a trained PADing, whose predictions become labels of unseen classes where nothing is
        # annotated; empty: off. SCORE: probability from which a prediction counts. MAX_OVERLAP: share of its mask that
        # may lie on annotated pixels.
        SELF_TRAINING=CfgNode({"WEIGHTS": "", "SCORE": 0.5, "MAX_OVERLAP": 0.1}),
        # True: train the second stage also without the segmenter of stage 1, on random weights that stay as they are.
        RANDOM_SEGMENTER=False,
        # Folder in which the second stage keeps the frozen segmenter's outputs, so that further trainings on the same
        # weights and images need not run it; empty: off. For small data: it grows with every batch.
        SEGMENTER_CACHE="",
    )  # fmt: skip


def _generator(cfg: CfgNode) -> Iterator[str]:
    try:
        generator_type(cfg)
    except UserError as error:
        yield str(error)


CONFIG_RULES = [
    Joint("model", _generator),
    Rule("model", "MODEL.MASK_FORMER", at_least(1), "TRANS_MEMORY_NUM_QUERY NUM_CHOOSE CLS_SLICE"),
    Rule("model", "MODEL.MASK_FORMER", below_one, "TRANS_DROP_RATE DROP_OUT_ED"),
    Rule("model", "MODEL.MASK_FORMER", at_least(0), "CLASS_ECO GENERATOR_CLS_WEIGHT STRUCTURE_WEIGHT"),
    Rule("model", "MODEL.MASK_FORMER", at_least(0), "WEIGHT_1 WEIGHT_2 WEIGHT_3"),
    Rule("train", "MODEL.MASK_FORMER.SELF_TRAINING", from_to(0, 1), "SCORE MAX_OVERLAP"),
    Rule("train", "SOLVER", at_least(0), "GENERATOR_LR"),
]
