"""Adds this project's config keys to Detectron2's, and reads a YAML file into a frozen config.

Keys of Mask2Former and of the published PADing code keep their names and defaults, so published YAML files load
unchanged. A method adds its own keys with ``add_config(cfg)`` in its module. PADing's keys are always there; those of
D2Zero or of your own method are added when a YAML file names the module under ``PLUGINS``. ``config_keys.yaml`` beside
each module says what its keys mean; ``python -m PADing.config_reference`` shows it.
"""

import os
from collections.abc import Iterable, Sequence
from types import ModuleType

from detectron2.config import CfgNode, get_cfg

from PADing.config_values import merge, merge_opts, parse_opts
from PADing.errors import UserError, refuse
from PADing.plugins import import_methods, import_plugins
from PADing.sharing.places import shared_folder
from PADing.yaml_files import read_config_files

__all__ = ["AS_THE_SPLIT_SAYS", "add_maskformer2_config", "load_config", "parse_opts", "read_config"]

# Value of MODEL.SEM_SEG_HEAD.NUM_CLASSES: as many classes as the model needs for its data sets.
AS_THE_SPLIT_SAYS = -1


def add_maskformer2_config(cfg: CfgNode) -> None:
    """Add the keys of Mask2Former, of this framework and of its own methods (PADing) to ``cfg``, in place."""
    _add_framework_keys(cfg)
    _add_input_and_solver_keys(cfg)
    _add_mask_former_keys(cfg)
    _add_class_embedding_keys(cfg)
    _add_swin_keys(cfg)
    _add_timm_keys(cfg)
    _add_ignored_keys(cfg)
    _add_keys_of(import_methods(), cfg)


def _add_keys_of(modules: Iterable[ModuleType], cfg: CfgNode) -> None:
    for module in modules:
        if hasattr(module, "add_config"):
            module.add_config(cfg)


def _add_framework_keys(cfg: CfgNode) -> None:
    cfg.PLUGINS = ()
    cfg.DATASETS.SPLIT_FILES = ()
    cfg.DETERMINISTIC = False
    cfg.SOLVER.RECIPE = ""
    cfg.SOLVER.ACCUMULATE = 1
    cfg.SOLVER.SHARDING = "none"
    cfg.MODEL.BACKBONE.ACTIVATION_CHECKPOINTING = False
    cfg.MODEL.SEM_SEG_HEAD.ACTIVATION_CHECKPOINTING = False
    cfg.MODEL.SEM_SEG_HEAD.AUTOCAST = False
    cfg.MODEL.COMPILE = False
    cfg.SOLVER.SHARES = 0
    cfg.SOLVER.EMA = CfgNode()
    cfg.SOLVER.EMA.update(ENABLED=False, DECAY=0.9998, WARMUP=True)
    cfg.MODEL.WEIGHTS_FROM = "auto"
    cfg.MODEL.SECOND_CLASSIFIER = CfgNode()
    cfg.MODEL.SECOND_CLASSIFIER.NAME = ""
    cfg.SOLVER.AMP.PRECISION = "float16"
    cfg.INPUT.update(ON_CORRUPT="fatal", REDUCED_DECODING=False, RESIZE_BY="pillow")
    cfg.TEST.MAX_IMAGES = 0
    cfg.TEST.PRECISION = "float32"
    cfg.TEST.CLASS_EMBEDDINGS = ""
    cfg.TEST.DISTRACTORS, cfg.TEST.NUM_DISTRACTORS = "", 0
    cfg.TEST.update(SEM_SEG_NAN_AWARE=False, PANOPTIC_EXCLUDE_ABSENT=False, WRITE_PNG=False)
    cfg.SOLVER.update(CHECKPOINT_KEEP=0, CHECKPOINT_MINUTES=0.0, CHECKPOINT_ASYNC=False)
    cfg.TRACKING = ()
    cfg.TRACKING_RUN = CfgNode()
    cfg.TRACKING_RUN.update(PROJECT="", NAME="", OFFLINE=False, IMAGES=4, TIMEOUT=30.0)
    cfg.TEST.BEST = CfgNode()
    cfg.TEST.BEST.update(METRIC="", MODE="max", PATIENCE=0)


def _add_input_and_solver_keys(cfg: CfgNode) -> None:
    cfg.INPUT.DATASET_MAPPER_NAME = "mask_former_semantic"
    cfg.INPUT.COLOR_AUG_SSD = False
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0
    cfg.INPUT.update(SIZE_DIVISIBILITY=-1, IMAGE_SIZE=1024, MIN_SCALE=0.1, MAX_SCALE=2.0)
    cfg.SOLVER.update(OPTIMIZER="ADAMW", WEIGHT_DECAY_EMBED=0.0, BACKBONE_MULTIPLIER=0.1)


def _add_mask_former_keys(cfg: CfgNode) -> None:
    cfg.MODEL.SEM_SEG_HEAD.update(
        PIXEL_DECODER_NAME="BasePixelDecoder",
        DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES=["res3", "res4", "res5"],
        MASK_DIM=256,
        TRANSFORMER_ENC_LAYERS=0,
        TRANSFORMER_ENC_DIM_FEEDFORWARD=1024,
    )
    node = cfg.MODEL.MASK_FORMER = CfgNode()
    node.update(DEEP_SUPERVISION=True, NO_OBJECT_WEIGHT=0.1, CLASS_WEIGHT=1.0, DICE_WEIGHT=1.0, MASK_WEIGHT=20.0)
    node.update(
        TRANSFORMER_DECODER_NAME="MultiScaleMaskedTransformerDecoder",
        TRANSFORMER_IN_FEATURE="res5",
        ENFORCE_INPUT_PROJ=False,
        NUM_OBJECT_QUERIES=100,
        HIDDEN_DIM=256, NHEADS=8, DIM_FEEDFORWARD=2048, DROPOUT=0.1, PRE_NORM=False,
        ENC_LAYERS=0, DEC_LAYERS=6,
    )  # fmt: skip
    node.update(TRAIN_NUM_POINTS=112 * 112, OVERSAMPLE_RATIO=3.0, IMPORTANCE_SAMPLE_RATIO=0.75)
    node.SIZE_DIVISIBILITY = 32
    node.TEST = CfgNode()
    node.TEST.update(
        SEMANTIC_ON=True, INSTANCE_ON=False, PANOPTIC_ON=False,
        OBJECT_MASK_THRESHOLD=0.0, OVERLAP_THRESHOLD=0.0,
        SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE=False, BOXES_FROM_MASKS=False,
    )  # fmt: skip


def _add_class_embedding_keys(cfg: CfgNode) -> None:
    cfg.MODEL.CLASS_EMBEDDINGS = ""
    cfg.MODEL.MASK_FORMER.VEC_PATH = None
    cfg.MODEL.MASK_FORMER.TRANS_NUM_LAYER = 1


def _add_swin_keys(cfg: CfgNode) -> None:
    cfg.MODEL.SWIN = CfgNode()
    cfg.MODEL.SWIN.update(
        PRETRAIN_IMG_SIZE=224, PATCH_SIZE=4, WINDOW_SIZE=7,
        EMBED_DIM=96, DEPTHS=[2, 2, 6, 2], NUM_HEADS=[3, 6, 12, 24], MLP_RATIO=4.0,
        QKV_BIAS=True, QK_SCALE=None, APE=False, PATCH_NORM=True,
        DROP_RATE=0.0, ATTN_DROP_RATE=0.0, DROP_PATH_RATE=0.3,
        OUT_FEATURES=["res2", "res3", "res4", "res5"],
        USE_CHECKPOINT=False,
    )  # fmt: skip


def _add_timm_keys(cfg: CfgNode) -> None:
    cfg.MODEL.TIMM = CfgNode()
    cfg.MODEL.TIMM.update(
        NAME="", PRETRAINED=False, WEIGHTS="", NORMALIZATION="timm", OUT_INDICES=[], IMAGE_SIZE=0,
        FROZEN=0, FREEZE_BATCH_NORM=False, DROP_PATH=0.0, USE_CHECKPOINT=False,
    )  # fmt: skip
    cfg.SOLVER.BACKBONE_LAYER_DECAY = 1.0


def _add_ignored_keys(cfg: CfgNode) -> None:
    cfg.MODEL.SEM_SEG_HEAD.update(DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS=4, DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS=8)
    cfg.MODEL.MASK_FORMER.NUM_GENERATE = 1


def load_config(path: str | os.PathLike, opts: Sequence = (), trust_plugins: bool = False) -> CfgNode:
    """Read a YAML file (with its ``_BASE_`` files), apply overrides, and return the frozen config.

    Also registers the data sets of ``DATASETS.SPLIT_FILES``, replaces ``MODEL.SEM_SEG_HEAD.NUM_CLASSES -1`` by the
    number of classes that the model needs for its data sets, and lets the backbone set the keys that it decides.

    Args:
        path: the YAML file; "" for the defaults alone; or a shared model: its folder, or ``hf://OWNER/NAME[@revision]``.
        opts: overrides as a flat sequence ``[KEY, value, KEY, value, ...]``; see ``PADing.config_values``.
        trust_plugins: import the plug-ins that a shared model names, which are left out otherwise.

    Raises:
        UserError: a missing file, unknown keys (with similar ones), values of the wrong type, a plug-in that cannot be
            imported. One message names all wrong keys and values.
    """
    cfg, problems = read_config(path, opts, trust_plugins)
    refuse(problems)
    return cfg


def read_config(path: str | os.PathLike, opts: Sequence = (), trust_plugins: bool = False) -> tuple[CfgNode, list[str]]:
    """As ``load_config``, but returns the config without the wrong values, and one sentence for each mistake.

    Raises:
        UserError: there is no config to return: an unreadable file, a plug-in that cannot be imported.
    """
    path = os.fspath(path)
    opts = parse_opts(opts)
    # Imported here, because they import PyTorch.
    from detectron2.projects.deeplab import add_deeplab_config

    from PADing.data.registration import register_split_files
    from PADing.sharing.reading import advice_on_plugins, read_shared_config

    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_maskformer2_config(cfg)
    tree: dict = {}
    folders: list[str] = []
    left_out: list[str] = []
    if path and (shared := shared_folder(path)):
        tree, left_out = read_shared_config(shared, trust_plugins)
    elif path:
        tree, folders = read_config_files(path)
    plugins = dict(zip(opts[0::2], opts[1::2], strict=True)).get("PLUGINS", tree.get("PLUGINS", ()))
    _add_keys_of(import_plugins(plugins, folders), cfg)
    problems = _version_problems(cfg, tree, path)
    # Not by merge_from_file: the genuine Detectron2 runs code that a YAML file contains.
    defaults = cfg.clone()
    problems += merge(cfg, tree, f"config file {path}", defaults)
    problems += merge_opts(cfg, opts, defaults)
    try:
        register_split_files(cfg.DATASETS.SPLIT_FILES)
        if cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == AS_THE_SPLIT_SAYS:
            cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = _count_classes(cfg)
    except UserError as error:
        problems.append(str(error))
    problems += _adapt_to_backbone(cfg, set(opts[0::2]))
    if left_out and problems and "PLUGINS" not in opts[0::2]:
        problems.insert(0, advice_on_plugins(left_out))  # first: it may explain all others
    cfg.freeze()
    return cfg, problems


def _version_problems(cfg: CfgNode, tree: dict, path: str) -> list[str]:
    version = tree.pop("VERSION", cfg.VERSION)
    if version == cfg.VERSION:
        return []
    return [f"config file {path}: VERSION {version} is unknown; rename the keys to those of VERSION {cfg.VERSION}."]


def _adapt_to_backbone(cfg: CfgNode, given: set[str]) -> list[str]:
    """Let the backbone change ``cfg`` if its class has ``adapt_config(cfg, given)``; returns its problems.

    ``given``: the keys of the command line.
    """
    from detectron2.modeling import BACKBONE_REGISTRY

    name = cfg.MODEL.BACKBONE.NAME
    adapt = getattr(BACKBONE_REGISTRY.get(name), "adapt_config", None) if name in BACKBONE_REGISTRY else None
    return list(adapt(cfg, given)) if adapt else []


def _count_classes(cfg: CfgNode) -> int:
    """How many classes the model needs; -1 if a name is wrong, which the check of names reports."""
    # Only here, because the registries import this module.
    from PADing.meta_arch.contract import count_classes

    return count_classes(cfg)
