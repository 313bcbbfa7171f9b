"""Checks a config before a command starts, and reports all mistakes at once: values, names, files, processes."""

import argparse
import logging
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY

from PADing.checkpoint_files import WEIGHT_FILES, file_problem
from PADing.class_space import ClassSpace
from PADing.config import parse_opts, read_config
from PADing.config_check import value_at, value_problems
from PADing.data.check import missing_files
from PADing.data.dataset_mappers import MAPPER_REGISTRY
from PADing.engine.best import best_problems
from PADing.engine.determinism import determinism_problems
from PADing.engine.distractors import distractor_problems
from PADing.engine.distributed import launched_by_torchrun
from PADing.engine.output_folder import refuse_to_replace
from PADing.engine.predicted_classes import named_class_problems
from PADing.engine.recipes import DEFAULT_RECIPE, TRAINING_RECIPE_REGISTRY, batch_problem
from PADing.engine.restart import started_before
from PADing.engine.shared_memory import shared_memory_problems
from PADing.engine.shares import takes_shares
from PADing.errors import UserError, did_you_mean, refuse
from PADing.files import existing_folder
from PADing.meta_arch.augmented import check_augmentable
from PADing.meta_arch.contract import architecture_of, contract_of
from PADing.modeling.registry import TRANSFORMER_DECODER_REGISTRY
from PADing.sharing.hub import Reference
from PADing.sharing.layout import HUB
from PADing.sharing.places import local_weights
from PADing.tracking.writer import tracking_problems

logger = logging.getLogger(__name__)

# What a command needs of a config. "model", "train" and "test" also choose the rules for values.
BUILDING = frozenset({"model"})
PREDICTION = BUILDING | {"test", "weights"}
EVALUATION = PREDICTION | {"test data", "output"}
TRAINING = EVALUATION | {"train", "train data"}

SCHEDULERS = ("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR", "WarmupPolyLR")
# Flags of train_net.py that other commands lack.
FURTHER_FLAGS = dict(more_opts=(), resume=False, overwrite=False, num_machines=1, machine_rank=0, recipes=None)
# Beginnings of names that Detectron2 downloads; it opens any other name as a local path.
REMOTE = ("detectron2://", "catalog://", "http://", "https://")


def checked_config(args: argparse.Namespace, needs: Collection[str] | None = None) -> CfgNode:
    """Read and check the config that a command line names. Completes ``args.opts`` and ``args.num_gpus``.

    Args:
        args: ``config_file``, ``num_gpus``, ``opts``, and further flags of ``train_net.py`` if the command has them.
        needs: what the command needs, one of the sets above; default: training, or evaluation with ``args.eval_only``.

    Raises:
        UserError: lists all mistakes and what to do.
    """
    flags = argparse.Namespace(**{**FURTHER_FLAGS, **vars(args)})
    args.opts = parse_opts([*args.opts, *flags.more_opts])
    if args.num_gpus is None:
        args.num_gpus = int(torch.cuda.is_available())
        if not args.num_gpus:
            logger.info("No GPU is available, so the CPU is used.")
    if args.num_gpus == 0 and "MODEL.DEVICE" not in args.opts[::2]:
        args.opts += ["MODEL.DEVICE", "cpu"]
    if not args.config_file and "MODEL.META_ARCHITECTURE" not in args.opts[::2]:
        raise UserError("--config-file is missing. Name a YAML file, such as configs/mini/panoptic-PADing.yaml.")
    cfg, problems = read_config(args.config_file, args.opts)
    if needs is None:
        needs = EVALUATION if args.eval_only else TRAINING
    again = started_before(cfg.OUTPUT_DIR)
    if (flags.resume or again) and os.path.isfile(os.path.join(cfg.OUTPUT_DIR, "last_checkpoint")):
        needs = set(needs) - {"weights"}  # MODEL.WEIGHTS is not read then
    problems += _processes(cfg, args.num_gpus, flags.num_machines, flags.machine_rank)
    processes = max(args.num_gpus, 1) * max(flags.num_machines, 1)
    problems += start_problems(cfg, needs, int(os.environ["WORLD_SIZE"]) if launched_by_torchrun() else processes)
    if flags.recipes is not None and not args.eval_only:
        name = _recipe(cfg)
        if flags.recipes and name not in flags.recipes and name in TRAINING_RECIPE_REGISTRY:
            recipes = " or ".join(flags.recipes)
            problems.append(f"This script trains with {recipes}, but the config asks for {name}. Use train_net.py.")
        try:
            if not launched_by_torchrun():  # a process may join a running job, which all of them find out together
                refuse_to_replace(Path(cfg.OUTPUT_DIR), flags.resume, flags.overwrite)
        except UserError as error:
            problems.append(str(error))
    refuse(problems)
    return cfg


def start_problems(cfg: CfgNode, needs: Collection[str], processes: int = 1) -> list[str]:
    """One message for each mistake in a config: what is wrong, where, and what to do.

    Args:
        cfg: the config.
        needs: what the command needs, one of the sets above.
        processes: the number of processes that share a training batch.
    """
    # The table of rules does not know the keys of a network that is not built on the host model.
    architecture = architecture_of(cfg)
    contract = contract_of(architecture)
    unchecked = architecture is not None and not contract.built_on_host
    uses = set(needs) - ({"model"} if unchecked else set())
    problems = value_problems(cfg, uses)
    names = [*_names(cfg, uses), *_data_set_names(cfg, needs)]
    problems += names
    problems += _device_and_batch(cfg, needs, processes)
    problems += determinism_problems(cfg)
    if {"train data", "test data"} & set(needs):
        problems += shared_memory_problems(cfg)
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
        problems += tracking_problems(cfg)
        problems += [] if names else best_problems(cfg)
    if "test data" in needs:
        problems += [] if names else [*distractor_problems(cfg), *named_class_problems(cfg)]
    if "output" in needs:
        problems += _output(cfg.OUTPUT_DIR)
    if "model" in needs and not names and not unchecked:
        problems += _fit(cfg, needs)
    return list(dict.fromkeys(problems))


def on_present_device(cfg: CfgNode) -> CfgNode:
    """``cfg``; or, if it asks for a GPU and there is none, a copy for the CPU, with a warning in the log."""
    if not cfg.MODEL.DEVICE.startswith("cuda") or torch.cuda.is_available():
        return cfg
    logger.warning("MODEL.DEVICE is %r, but no GPU is available here, so the CPU is used.", cfg.MODEL.DEVICE)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    cfg.freeze()
    return cfg


def _recipe(cfg: CfgNode) -> str:
    """The training recipe of a config: ``SOLVER.RECIPE``, or else that of its meta-architecture."""
    return cfg.SOLVER.RECIPE or contract_of(architecture_of(cfg)).training_recipe


def _processes(cfg: CfgNode, gpus: int, machines: int, rank: int) -> Iterator[str]:
    """Mistakes in the flags that start processes, and in the device."""
    if gpus < 0:
        yield f"--num-gpus is {gpus}. Set a whole number of at least 0 (0: on the CPU)."
    if machines < 1:
        yield f"--num-machines is {machines}. Set a whole number of at least 1."
    elif not 0 <= rank < machines:
        yield f"--machine-rank is {rank}. Set a number from 0 to {machines - 1}, one for each machine."
    present, device = torch.cuda.device_count() if torch.cuda.is_available() else 0, cfg.MODEL.DEVICE
    if device.startswith("cuda") and not present:
        cure = "Add --num-gpus 0 to run on the CPU (or MODEL.DEVICE cpu)."
        yield f"MODEL.DEVICE is {device!r}, but no GPU is available here. {cure}"
    elif device.startswith("cuda") and gpus > present and not launched_by_torchrun():
        yield f"--num-gpus is {gpus}, but this machine has {present}. Set a lower number."


def _names(cfg: CfgNode, uses: Collection[str]) -> list[str]:
    """Mistakes in names of registered parts."""
    registries = {"MODEL.META_ARCHITECTURE": META_ARCH_REGISTRY}
    known: dict[str, Iterable[str]] = {}
    if "model" in uses:
        heads = {key for key, _ in SEM_SEG_HEADS_REGISTRY}
        decoders = {key for key in heads if hasattr(SEM_SEG_HEADS_REGISTRY.get(key), "forward_features")}
        known |= {"MODEL.SEM_SEG_HEAD.NAME": heads - decoders, "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": decoders}
        registries["MODEL.BACKBONE.NAME"] = BACKBONE_REGISTRY
        registries["MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME"] = TRANSFORMER_DECODER_REGISTRY
    if "train" in uses:
        registries["SOLVER.RECIPE"] = TRAINING_RECIPE_REGISTRY
    known |= {key: {name for name, _ in registry} for key, registry in registries.items()}
    own = ". To use your own, name the module that registers it under PLUGINS"
    advice = dict.fromkeys(known, own)
    if "train" in uses:
        known["INPUT.DATASET_MAPPER_NAME"] = MAPPER_REGISTRY
        known["SOLVER.LR_SCHEDULER_NAME"] = SCHEDULERS
        known["DATALOADER.SAMPLER_TRAIN"] = ("TrainingSampler",)
        if _recipe(cfg) == DEFAULT_RECIPE:
            known["SOLVER.OPTIMIZER"] = ("SGD", "ADAMW")
    found = {key: _recipe(cfg) if key == "SOLVER.RECIPE" else value_at(cfg, key) for key in known}
    return [_unknown(key, found[key], known[key], advice.get(key, "")) for key in known if found[key] not in known[key]]


def _unknown(key: str, name: str, known: Iterable[str], advice: str) -> str:
    """The message for a name that is not registered, with similar names or all names."""
    known = sorted(known)
    hint = did_you_mean(name, known) or f" (there are: {', '.join(known[:12])}{', ...' if len(known) > 12 else ''})"
    return f"{key} is {name!r}, which does not exist{hint}{advice}."


def _data_set_names(cfg: CfgNode, needs: Collection[str]) -> Iterator[str]:
    known = DatasetCatalog.list()
    advice = ". Register your own data by a split file: DATASETS.SPLIT_FILES FILE"
    for key, use, why in (
        ("TRAIN", {"model", "train data"}, "the classes of its first data set are those of the model"),
        ("TEST", {"test data"}, "there is nothing to evaluate on"),
    ):
        names = cfg.DATASETS[key]
        if not names and use & set(needs):
            yield f"DATASETS.{key} is empty: {why}. Name one, such as DATASETS.{key} mini_val_panoptic."
        for name in names:
            if isinstance(name, str) and name not in known:
                yield _unknown(f"DATASETS.{key}", name, known, advice)


def _device_and_batch(cfg: CfgNode, needs: Collection[str], processes: int) -> Iterator[str]:
    kinds = {"cpu", "cuda", "meta"} if BUILDING.issuperset(needs) else {"cpu", "cuda"}  # meta: shapes without numbers
    try:
        known = torch.device(cfg.MODEL.DEVICE).type in kinds
    except RuntimeError:
        known = False
    if not known:
        yield f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}. Set cpu, cuda, or one GPU such as cuda:0."
    if "train" in needs and cfg.SOLVER.IMS_PER_BATCH >= 1:
        name = _recipe(cfg)
        shares = name in TRAINING_RECIPE_REGISTRY and takes_shares(TRAINING_RECIPE_REGISTRY.get(name))
        if problem := batch_problem(cfg, processes, shares):
            yield problem


def _weights(key: str, path: str) -> Iterator[str]:
    if path.startswith(HUB):
        try:
            Reference.of(path)
        except UserError as error:
            yield f"{key}: {error}"
        return
    if not path or path.startswith(REMOTE):
        return
    path = local_weights(path)
    local, weights = Path(path), f"Weights {path!r} ({key})"  # the loader does not expand ~ either
    if not os.path.exists(path):  # unlike Path, this does not ignore a slash at the end
        others = [file.name for pattern in WEIGHT_FILES for file in local.parent.glob(pattern)]
        scheme = "" if "://" not in path else f" Addresses begin with {', '.join((*REMOTE, HUB))}."
        tilde = " Write the home folder in full." if path.startswith("~") else ""
        yield f"{weights} do not exist{did_you_mean(local.name, others)}.{scheme}{tilde} Check the path."
    elif local.is_file() and not os.access(local, os.R_OK):
        yield f"{weights} cannot be read: no permission. Change the permission of the file."
    elif problem := file_problem(local):
        damaged = "Copy or download the file again, or name another."
        cure = damaged if problem.startswith("damaged") else "Name a checkpoint, such as model_final.pth."
        yield f"{weights} are {problem.rstrip('.')}. {cure}"


def _output(path: str) -> Iterator[str]:
    folder = existing_folder(Path(path).absolute())
    if not folder.is_dir():
        yield f"OUTPUT_DIR is {path!r}, but {folder} is a file. Choose another folder."
    elif not os.access(folder, os.W_OK):
        yield f"OUTPUT_DIR is {path!r}, but you have no permission to write to {folder}. Choose another folder."


def _fit(cfg: CfgNode, needs: Collection[str]) -> list[str]:
    """Misfits of model and data sets; to be called when all names are right."""
    problems, count = [], cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    try:
        if "test" in needs and cfg.TEST.AUG.ENABLED:
            check_augmentable(architecture_of(cfg))
        contract_of(architecture_of(cfg)).check_start(cfg, training="train" in needs)
    except UserError as error:
        problems.append(str(error))
    if "train" in needs and cfg.INPUT.DATASET_MAPPER_NAME == "default" and cfg.INPUT.MASK_FORMAT != "bitmask":
        others = ", ".join(sorted(name for name in MAPPER_REGISTRY if name != "default"))
        wrong = "INPUT.DATASET_MAPPER_NAME is 'default' and INPUT.MASK_FORMAT 'polygon', but the losses need bitmasks."
        problems.append(f"{wrong} Set INPUT.MASK_FORMAT bitmask, or one of the mappers {others}.")
    if "train" in needs and not problems:
        # Otherwise a label beyond the outputs would be an index error in the loss, or a failed assertion on the GPU.
        for name in cfg.DATASETS.TRAIN:
            try:
                classes = len(ClassSpace.of(MetadataCatalog.get(name)))
            except UserError:
                continue  # a set of another package, without class names
            if classes > count:
                wrong = f"but the training set {name} has {classes} classes. Set {classes}, or -1 to have them counted."
                problems.append(f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {count}, {wrong}")
    return problems
