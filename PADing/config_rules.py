"""One table of the allowed values of config keys; ``PADing.config_check`` applies it before a command starts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


@dataclass(frozen=True)
class Allowed:
    """Allowed values: ``words`` for a message "Set <words>.", and ``holds``, the test."""

    words: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class Rule:
    """The allowed values of some keys of one section.

    Attributes:
        needed_for: the uses of a config that read the keys, separated by spaces: "model" (build it), "train", "test".
        section: such as ``SOLVER``.
        allowed: the allowed values.
        keys: keys of the section, separated by spaces.
        note: a hint for the message, which helps to choose a value.
    """

    needed_for: str
    section: str
    allowed: Allowed
    keys: str
    note: str = ""

    def full_keys(self) -> list[str]:
        """The keys with their section, such as ``SOLVER.BASE_LR``."""
        return [f"{self.section}.{key}".lstrip(".") for key in self.keys.split()]


def at_least(low: float) -> Allowed:
    """Numbers from ``low``."""
    return Allowed(f"a number of at least {low}", lambda value: _is_number(value) and value >= low)


def above(low: float) -> Allowed:
    """Numbers greater than ``low``."""
    return Allowed(f"a number above {low}", lambda value: _is_number(value) and value > low)


def from_to(low: float, high: float) -> Allowed:
    """Numbers from ``low`` to ``high``, both included."""
    return Allowed(f"a number from {low} to {high}", lambda value: _is_number(value) and low <= value <= high)


def one_of(*values) -> Allowed:
    """The given values alone."""
    shown = ", ".join("''" if value == "" else str(value) for value in values)
    return Allowed(f"one of {shown}" if len(values) > 1 else shown, lambda value: value in values)


def _each(allowed: Allowed, sizes: Sequence[int] = range(1, 1000)) -> Allowed:
    number = f"{sizes[0]} or more values" if len(sizes) > 9 else f"{' or '.join(map(str, sizes))} values"
    return Allowed(
        f"a list of {number}, each {allowed.words}",
        lambda value: isinstance(value, list | tuple) and len(value) in sizes and all(map(allowed.holds, value)),
    )


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_text(value) -> bool:
    return isinstance(value, str) and bool(value.strip())


below_one = Allowed("a number from 0 to below 1", lambda value: _is_number(value) and 0 <= value < 1)
above_0_to_1 = Allowed("a number above 0 and up to 1", lambda value: _is_number(value) and 0 < value <= 1)
_text = Allowed("a name", _is_text)
_text_or_none = Allowed("the path of a file, or None", lambda value: value is None or _is_text(value))
_number = Allowed("a number", _is_number)
_number_or_none = Allowed("a number, or None", lambda value: value is None or _is_number(value))
_names = _each(_text, range(1000))
_whole_numbers = Allowed(
    "a list of whole numbers", lambda value: all(isinstance(x, int) and not isinstance(x, bool) for x in value)
)
_norm = one_of("", "BN", "SyncBN", "naiveSyncBN", "naiveSyncBN_N", "nnSyncBN", "FrozenBN", "GN", "LN")
_counted = "the number of classes, or -1 for as many as the data sets' split says"
_class_count = Allowed(_counted, lambda value: value == -1 or value >= 1)
_norm_type = Allowed("a number above 0, or inf", lambda value: value > 0)
_ascending = Allowed(
    "whole numbers of at least 0 that ascend, such as (6000, 8000)",
    lambda value: all(isinstance(step, int) and step >= 0 for step in value) and all(a < b for a, b in pairwise(value)),
)
# Detectron2's seed_all_rng refuses larger seeds, and each process adds its rank.
_seed = Allowed(
    f"a whole number below 2**32 - 1024 ({2**32 - 1024}), or a negative one for another seed in each run",
    lambda value: value < 2**32 - 1024,
)
_expected = Allowed(
    "a list of [task, metric, value, tolerance], such as [['segm', 'AP', 38.5, 0.2]]",
    lambda value: all(isinstance(row, list | tuple) and len(row) == 4 for row in value),
)

RULES: list[Rule] = [
    Rule("model train test", "DATASETS", _names, "TRAIN TEST SPLIT_FILES"),
    # ---- the network
    Rule("model", "MODEL", _each(_number, [3]), "PIXEL_MEAN", "one for each channel, scale 0 to 255"),
    Rule("model", "MODEL", _each(above(0), [3]), "PIXEL_STD", "one for each channel, scale 0 to 255"),
    Rule("model", "MODEL.BACKBONE", from_to(-1, 5), "FREEZE_AT", "0: nothing is frozen; 5: everything"),
    Rule("model", "MODEL.RESNETS", one_of(18, 34, 50, 101, 152), "DEPTH"),
    Rule("model", "MODEL.RESNETS", at_least(1), "NUM_GROUPS WIDTH_PER_GROUP RES2_OUT_CHANNELS STEM_OUT_CHANNELS"),
    Rule("model", "MODEL.RESNETS", one_of(1, 2), "RES5_DILATION"),
    Rule("model", "MODEL.RESNETS", _norm, "NORM"),
    Rule("model", "MODEL.RESNETS", _each(one_of("stem", "res2", "res3", "res4", "res5")), "OUT_FEATURES"),
    Rule("model", "MODEL.SWIN", at_least(1), "PRETRAIN_IMG_SIZE PATCH_SIZE EMBED_DIM WINDOW_SIZE"),
    Rule("model", "MODEL.SWIN", _each(at_least(1)), "DEPTHS NUM_HEADS"),
    Rule("model", "MODEL.SWIN", above(0), "MLP_RATIO"),
    Rule("model", "MODEL.SWIN", below_one, "DROP_RATE ATTN_DROP_RATE DROP_PATH_RATE"),
    Rule("model", "MODEL.SWIN", _number_or_none, "QK_SCALE", "None: by the width of a head"),
    Rule("model", "MODEL.TIMM", one_of("timm", "config"), "NORMALIZATION", "timm: as the model expects"),
    Rule("model", "MODEL.TIMM", _whole_numbers, "OUT_INDICES", "empty: the maps of strides 4, 8, 16 and 32"),
    Rule("model", "MODEL.TIMM", from_to(0, 16384), "IMAGE_SIZE", "0: the one that timm names"),
    Rule("model", "MODEL.TIMM", from_to(0, 5), "FROZEN", "0: nothing is frozen; 5: everything"),
    Rule("model", "MODEL.TIMM", below_one, "DROP_PATH"),
    Rule("model", "MODEL.SEM_SEG_HEAD", _class_count, "NUM_CLASSES"),
    Rule("model", "MODEL.SEM_SEG_HEAD", from_to(-1, 255), "IGNORE_VALUE", "the label that no loss counts"),
    Rule("model", "MODEL.SEM_SEG_HEAD", at_least(1), "CONVS_DIM MASK_DIM COMMON_STRIDE"),
    Rule("model", "MODEL.SEM_SEG_HEAD", at_least(0), "TRANSFORMER_ENC_LAYERS LOSS_WEIGHT"),
    Rule("model", "MODEL.SEM_SEG_HEAD", at_least(1), "TRANSFORMER_ENC_DIM_FEEDFORWARD"),
    Rule("model", "MODEL.SEM_SEG_HEAD", _norm, "NORM"),
    Rule("model", "MODEL.SEM_SEG_HEAD", _each(_text), "IN_FEATURES DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES"),
    Rule("model", "MODEL.MASK_FORMER", at_least(1), "HIDDEN_DIM NHEADS NUM_OBJECT_QUERIES DIM_FEEDFORWARD"),
    Rule("model", "MODEL.MASK_FORMER", at_least(0), "ENC_LAYERS NO_OBJECT_WEIGHT CLASS_WEIGHT MASK_WEIGHT DICE_WEIGHT"),
    Rule("model", "MODEL.MASK_FORMER", at_least(1), "DEC_LAYERS", "it counts the prediction on the initial queries"),
    Rule("model", "MODEL.MASK_FORMER", below_one, "DROPOUT"),
    Rule("model", "MODEL.MASK_FORMER", at_least(1), "TRAIN_NUM_POINTS OVERSAMPLE_RATIO TRANS_NUM_LAYER"),
    Rule("model", "MODEL.MASK_FORMER", from_to(0, 1), "IMPORTANCE_SAMPLE_RATIO"),
    Rule("model test", "MODEL.MASK_FORMER.TEST", from_to(0, 1), "OBJECT_MASK_THRESHOLD OVERLAP_THRESHOLD"),
    Rule("model", "MODEL.MASK_FORMER", _text_or_none, "VEC_PATH", "None: MODEL.CLASS_EMBEDDINGS is used"),
    Rule("model", "MODEL", one_of("auto", "model", "ema"), "WEIGHTS_FROM", "ema: averaged weights"),
    # ---- images
    Rule("model train test", "INPUT", one_of("RGB", "BGR"), "FORMAT"),
    Rule("train", "INPUT", at_least(1), "IMAGE_SIZE MAX_SIZE_TRAIN"),
    Rule("train", "INPUT", above(0), "MIN_SCALE MAX_SCALE"),
    Rule("train", "INPUT", _each(at_least(1)), "MIN_SIZE_TRAIN", "sides in pixels"),
    Rule("train", "INPUT", one_of("pillow", "torch"), "RESIZE_BY"),
    Rule("train", "INPUT", one_of("choice", "range"), "MIN_SIZE_TRAIN_SAMPLING"),
    Rule("train", "INPUT", one_of("none", "horizontal", "vertical"), "RANDOM_FLIP"),
    Rule("train", "INPUT", one_of("polygon", "bitmask"), "MASK_FORMAT"),
    Rule("train test", "INPUT", one_of("fatal", "skip"), "ON_CORRUPT"),
    Rule("train", "INPUT.CROP", one_of("absolute", "absolute_range", "relative", "relative_range"), "TYPE"),
    Rule("train", "INPUT.CROP", _each(above(0), [2]), "SIZE", "height and width"),
    Rule("train", "INPUT.CROP", from_to(0, 1), "SINGLE_CATEGORY_MAX_AREA"),
    Rule("test", "INPUT", at_least(0), "MIN_SIZE_TEST", "0: images keep their size"),
    Rule("test", "INPUT", at_least(1), "MAX_SIZE_TEST"),
    Rule("train test", "DATALOADER", at_least(0), "NUM_WORKERS", "0 loads images in the training process itself"),
    # ---- training
    Rule("train", "SOLVER", at_least(1), "MAX_ITER", "the number of iterations"),
    Rule("train", "SOLVER", at_least(1), "CHECKPOINT_PERIOD", "above MAX_ITER, only the end is saved"),
    Rule("train", "SOLVER", at_least(1), "IMS_PER_BATCH", "images of all processes together"),
    Rule("train", "SOLVER", at_least(0), "REFERENCE_WORLD_SIZE WARMUP_ITERS BASE_LR BASE_LR_END"),
    Rule("train", "SOLVER", at_least(0), "WEIGHT_DECAY WEIGHT_DECAY_NORM WEIGHT_DECAY_EMBED BACKBONE_MULTIPLIER"),
    Rule("train", "SOLVER", above_0_to_1, "BACKBONE_LAYER_DECAY", "1: no decay"),
    Rule("train", "SOLVER", at_least(0), "POLY_LR_POWER"),
    Rule("train", "SOLVER", below_one, "MOMENTUM"),
    Rule("train", "SOLVER", above(0), "GAMMA"),
    Rule("train", "SOLVER", at_least(1), "NUM_DECAYS"),
    Rule("train", "SOLVER", at_least(1), "ACCUMULATE", "micro-batches of one update"),
    Rule("train", "SOLVER", one_of("none", "optimizer"), "SHARDING", "optimizer: share its state among the processes"),
    Rule("train", "SOLVER", at_least(0), "SHARES", "the largest number of processes, or 0"),
    Rule("train", "SOLVER", _ascending, "STEPS", "those beyond MAX_ITER are left out"),
    Rule("train", "SOLVER", from_to(0, 1), "WARMUP_FACTOR POLY_LR_CONSTANT_ENDING"),
    Rule("train", "SOLVER", one_of("linear", "constant"), "WARMUP_METHOD"),
    Rule("train", "SOLVER.CLIP_GRADIENTS", one_of("value", "norm", "full_model"), "CLIP_TYPE"),
    Rule("train", "SOLVER.CLIP_GRADIENTS", above(0), "CLIP_VALUE"),
    Rule("train", "SOLVER.CLIP_GRADIENTS", _norm_type, "NORM_TYPE"),
    Rule("train", "SOLVER.AMP", one_of("float16", "bfloat16"), "PRECISION"),
    Rule("train", "SOLVER.EMA", below_one, "DECAY", "such as 0.9998"),
    # ---- evaluation
    Rule("test", "TEST", one_of("float32", "bfloat16", "float16"), "PRECISION"),
    Rule("test", "TEST", at_least(1), "DETECTIONS_PER_IMAGE"),
    Rule("test", "TEST", at_least(0), "MAX_IMAGES", "0: all images"),
    Rule("test", "TEST", at_least(0), "NUM_DISTRACTORS", "0: all names of the file"),
    Rule("test", "TEST", _expected, "EXPECTED_RESULTS"),
    Rule("train", "SOLVER", at_least(0), "CHECKPOINT_KEEP", "0: all are kept"),
    Rule("train", "SOLVER", at_least(0), "CHECKPOINT_MINUTES", "0: by iterations alone"),
    Rule("train", "", _names, "TRACKING"),
    Rule("train", "TRACKING_RUN", at_least(0), "IMAGES", "0: no images"),
    Rule("train", "TRACKING_RUN", above(0), "TIMEOUT", "seconds"),
    Rule("train", "TEST.BEST", one_of("max", "min"), "MODE", "max: larger is better"),
    Rule("train", "TEST.BEST", at_least(0), "PATIENCE", "0: train to the end"),
    Rule("train test", "TEST.PRECISE_BN", at_least(1), "NUM_ITER"),
    Rule("test", "TEST.AUG", _each(at_least(1)), "MIN_SIZES", "shorter sides in pixels"),
    Rule("test", "TEST.AUG", at_least(1), "MAX_SIZE"),
    Rule("train test", "", _seed, "SEED"),
    Rule("train test", "", one_of("", "highest", "high", "medium"), "FLOAT32_PRECISION"),
    Rule("train test", "", Allowed("the path of a folder", _is_text), "OUTPUT_DIR"),
]
