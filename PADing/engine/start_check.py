"""Finds what would stop a command later before it starts, all at once: values, names, files, processes."""

import logging
import os
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY

import PADing.meta_arch  # noqa: F401  registers the meta-architectures
from PADing.checkpoint_files import file_problem
from PADing.config_check import value_problems
from PADing.data.dataset_mappers import MAPPER_REGISTRY
from PADing.data.presence import missing_files
from PADing.engine.recipes import DEFAULT_RECIPE, TRAINING_RECIPE_REGISTRY
from PADing.errors import UserError
from PADing.meta_arch.contract import architecture_of, contract_of
from PADing.modeling.transformer_decoder.registry import TRANSFORMER_DECODER_REGISTRY

__all__ = [
    "BUILDING",
    "EVALUATION",
    "PREDICTION",
    "TRAINING",
    "on_present_device",
    "recipe_name",
    "start_problems",
]

logger = logging.getLogger(__name__)

# What a command needs of a config. "model", "train" and "test" also choose the rules for values.
BUILDING = frozenset({"model"})
PREDICTION = BUILDING | {"test", "weights"}
EVALUATION = PREDICTION | {"test data", "output"}
TRAINING = EVALUATION | {"train", "train data"}

SCHEDULERS = ("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR", "WarmupPolyLR")
OPTIMIZERS = ("SGD", "ADAMW")
# Names that one message lists.
SHOWN = 12
# Names that Detectron2 fetches, and opens as paths of this machine otherwise.
REMOTE = ("detectron2://", "catalog://", "http://", "https://")


def start_problems(cfg: CfgNode, needs: Collection[str], processes: int = 1) -> list[str]:
    """Sentences that name what is wrong, where, and what to do; none when the command can start.

    Args:
        needs: what the command needs, see the sets above.
        processes: that share a training batch.
    """
    # Networks that are not built on the host have keys of their own.
    architecture = architecture_of(cfg)
    contract = contract_of(architecture)
    unchecked = architecture is not None and not contract.built_on_host
    uses = set(needs) - ({"model"} if unchecked else set())
    problems = value_problems(cfg, uses)
    names = [*_names(cfg, uses), *_data_set_names(cfg, needs)]
    problems += names
    problems += _device(cfg, needs)
    if "train" in needs:
        problems += _batch(cfg, processes)
    for key, use in (("TRAIN", "train data"), ("TEST", "test data")):
        if use in needs:
            known = DatasetCatalog.list()
            problems += filter(None, (missing_files(name) for name in cfg.DATASETS[key] if name in known))
    if "weights" in needs:
        problems += _weights("MODEL.WEIGHTS", cfg.MODEL.WEIGHTS)
        if "train" in needs:
            problems += filter(None, [contract.explain_named_weights(cfg)])
    if "train" in needs:
        for key, path in contract.further_weights(cfg).items():
            problems += _weights(key, path)
    if "output" in needs:
        problems += _output(cfg.OUTPUT_DIR)
    if "model" in needs and not names and not unchecked:
        problems += _fit(cfg, needs)
    return problems


def on_present_device(cfg: CfgNode) -> CfgNode:
    """``cfg``, or a copy of it for the CPU when it asks for a GPU and this machine has none; said in the log."""
    if not cfg.MODEL.DEVICE.startswith("cuda") or torch.cuda.is_available():
        return cfg
    logger.warning("MODEL.DEVICE is %r, but no GPU is available here, so the CPU is used.", cfg.MODEL.DEVICE)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    cfg.freeze()
    return cfg


def recipe_name(cfg: CfgNode) -> str:
    """The training recipe that a config asks for, by ``SOLVER.RECIPE`` or through its meta-architecture."""
    return cfg.SOLVER.RECIPE or contract_of(architecture_of(cfg)).training_recipe


def unknown_name(key: str, name: str, known: Iterable[str], advice: str = "") -> str:
    """One sentence for a name that is not registered: near matches, or all there are."""
    known = sorted(known)
    lower = {other.lower(): other for other in known}
    near = [lower[other] for other in get_close_matches(str(name).lower(), lower, n=3)]
    shown = ", ".join(known[:SHOWN]) + (", ..." if len(known) > SHOWN else "")
    hint = f"did you mean {', '.join(near)}?" if near else f"there are: {shown}"
    return f"{key} is {name!r}, which does not exist ({hint}){advice}."


def _names(cfg: CfgNode, uses: Collection[str]) -> list[str]:
    """Names in the config that nothing is registered under."""
    own = ". One of your own is registered by a module that PLUGINS names"
    checked = [("MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, _keys(META_ARCH_REGISTRY), own)]
    head, node = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASK_FORMER
    if "model" in uses:
        heads = _keys(SEM_SEG_HEADS_REGISTRY)
        decoders = {key for key in heads if hasattr(SEM_SEG_HEADS_REGISTRY.get(key), "forward_features")}
        checked += [
            ("MODEL.BACKBONE.NAME", cfg.MODEL.BACKBONE.NAME, _keys(BACKBONE_REGISTRY), own),
            ("MODEL.SEM_SEG_HEAD.NAME", head.NAME, heads - decoders, own),
            ("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", head.PIXEL_DECODER_NAME, decoders, own),
            (
                "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME",
                node.TRANSFORMER_DECODER_NAME,
                _keys(TRANSFORMER_DECODER_REGISTRY),
                own,
            ),
        ]
    if "train" in uses:
        recipe = recipe_name(cfg)
        checked += [
            ("INPUT.DATASET_MAPPER_NAME", cfg.INPUT.DATASET_MAPPER_NAME, MAPPER_REGISTRY, ""),
            ("SOLVER.LR_SCHEDULER_NAME", cfg.SOLVER.LR_SCHEDULER_NAME, SCHEDULERS, ""),
            ("SOLVER.RECIPE", recipe, _keys(TRAINING_RECIPE_REGISTRY), own),
            ("DATALOADER.SAMPLER_TRAIN", cfg.DATALOADER.SAMPLER_TRAIN, ["TrainingSampler"], ""),
        ]
        if recipe == DEFAULT_RECIPE:
            checked.append(("SOLVER.OPTIMIZER", cfg.SOLVER.OPTIMIZER, OPTIMIZERS, ""))
    return [unknown_name(*entry) for entry in checked if entry[1] not in entry[2]]


def _keys(registry) -> set[str]:
    return {key for key, _ in registry}


def _data_set_names(cfg: CfgNode, needs: Collection[str]) -> list[str]:
    problems, known = [], DatasetCatalog.list()
    for key, use in (("TRAIN", {"model", "train data"}), ("TEST", {"test data"})):
        if not cfg.DATASETS[key] and use & set(needs):
            why = {
                "TRAIN": "its first data set says which classes the model knows",
                "TEST": "there is nothing to evaluate on",
            }[key]
            problems.append(f"DATASETS.{key} is empty: {why}. Name one, such as DATASETS.{key} mini_val_panoptic.")
        advice = ". Register your own data by a split file: DATASETS.SPLIT_FILES FILE"
        problems += [
            unknown_name(f"DATASETS.{key}", name, known, advice)
            for name in cfg.DATASETS[key]
            if isinstance(name, str) and name not in known
        ]
    return problems


def _device(cfg: CfgNode, needs: Collection[str]) -> list[str]:
    kinds = {"cpu", "cuda", "meta"} if BUILDING.issuperset(needs) else {"cpu", "cuda"}  # meta: shapes without numbers
    try:
        known = torch.device(cfg.MODEL.DEVICE).type in kinds
    except RuntimeError:
        known = False
    return [] if known else [f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}. Set cpu, cuda, or one GPU such as cuda:0."]


def _batch(cfg: CfgNode, processes: int) -> list[str]:
    images, reference = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.REFERENCE_WORLD_SIZE
    # With a reference, Detectron2 adapts the batch to the number of processes.
    sharers, which = (reference, "SOLVER.REFERENCE_WORLD_SIZE") if reference > 0 else (processes, "processes")
    if images < 1 or images % sharers == 0:
        return []
    return [f"SOLVER.IMS_PER_BATCH is {images}. Set a multiple of {sharers} ({which}), which share each batch evenly."]


def _weights(key: str, path: str) -> list[str]:
    if not path or path.startswith(REMOTE):
        return []
    local = Path(path)  # ~ is left alone, as by the loader
    if not os.path.exists(path):  # Path would forgive a slash at the end
        folder = local.parent
        others = sorted([*folder.glob("*.pth"), *folder.glob("*.pkl")]) if folder.is_dir() else []
        near = get_close_matches(local.name, [other.name for other in others], n=3)
        hint = f" (did you mean {', '.join(str(folder / name) for name in near)}?)" if near else ""
        scheme = "" if "://" not in path else f" Addresses begin with {', '.join(REMOTE)}."
        tilde = " Write the home folder in full." if path.startswith("~") else ""
        return [f"Weights {path!r} ({key}) do not exist{hint}.{scheme}{tilde} Check the path."]
    if local.is_file() and not os.access(local, os.R_OK):
        return [f"Weights {path!r} ({key}) may not be read by this user. Change the permission of the file."]
    problem = file_problem(local)
    if not problem:
        return []
    cure = (
        "Copy or download the file again, or name another one."
        if problem.startswith("damaged")
        else "Name a checkpoint, such as model_final.pth."
    )
    return [f"Weights {path!r} ({key}) are {problem.rstrip('.')}. {cure}"]


def _output(path: str) -> list[str]:
    folder = Path(path).absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        return [f"OUTPUT_DIR is {path!r}, but {folder} is a file. Choose another folder."]
    if not os.access(folder, os.W_OK):
        return [f"OUTPUT_DIR is {path!r}, but this user may not write to {folder}. Choose another folder."]
    return []


def _fit(cfg: CfgNode, needs: Collection[str]) -> list[str]:
    """Whether model and data sets belong together; asked only when all names are right."""
    problems, count = [], cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    try:
        contract_of(architecture_of(cfg)).check_start(cfg, training="train" in needs)
    except UserError as error:
        problems.append(str(error))
    if "train" in needs and cfg.INPUT.DATASET_MAPPER_NAME == "default" and cfg.INPUT.MASK_FORMAT != "bitmask":
        others = ", ".join(sorted(name for name in MAPPER_REGISTRY if name != "default"))
        problems.append(
            "INPUT.DATASET_MAPPER_NAME is 'default' and INPUT.MASK_FORMAT 'polygon', but the losses need bitmasks. Set "
            f"INPUT.MASK_FORMAT bitmask, or one of the mappers {others}."
        )
    if "train" in needs and not problems:
        # A label beyond the outputs would end as an index error in the loss, or as a failed assertion on the GPU.
        for name in cfg.DATASETS.TRAIN:
            metadata = MetadataCatalog.get(name)
            classes = metadata.get("stuff_classes") or metadata.get("thing_classes") or ()
            if len(classes) > count:
                problems.append(
                    f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {count}, but the training set {name} has {len(classes)} "
                    f"classes. Set {len(classes)}, or -1 to have them counted."
                )
    return problems
