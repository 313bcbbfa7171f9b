"""The command line of ``train_net.py`` and ``train_net_pretrain.py``."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

import PADing  # noqa: F401  registers the shipped data sets
from PADing.command_line import message_of, run_command, shows_tracebacks
from PADing.config import load_config, parse_opts
from PADing.data.registration import register_split_files
from PADing.engine.checkpointer import TrainingCheckpointer
from PADing.engine.distributed import launch_on_cpus, launched_by_torchrun, torchrun_process_group
from PADing.engine.output_folder import discard_training, training_folder, training_in
from PADing.errors import UserError


def cli(argv: Sequence[str] | None = None, recipes: Sequence[str] = ()) -> int:
    """Parse arguments, start the processes, train or evaluate; returns the exit status.

    A ``UserError`` ends as one message on stderr and status 2, with a traceback only when ``PADING_TRACEBACK=1``.

    Args:
        argv: arguments without the program's name; default ``sys.argv[1:]``.
        recipes: the training recipes that this script is for; empty: all.
    """
    parser = default_argument_parser()
    parser.add_argument("--overwrite", action="store_true", help="replace the training that OUTPUT_DIR holds")
    args = parser.parse_args(argv)
    args.recipes = tuple(recipes)
    if args.num_machines == 1 and args.dist_url == parser.get_default("dist_url"):
        args.dist_url = "auto"  # any free port, so that several jobs of one user can share a machine
    return run_command(_start, args)


def _start(args: argparse.Namespace) -> None:
    device = torch.device(prepare(args).MODEL.DEVICE)
    if launched_by_torchrun():
        with torchrun_process_group(cpu=device.type == "cpu"):
            main(args)
    elif max(args.num_gpus, 1) * args.num_machines <= 1:
        main(args)
    else:
        start = launch_on_cpus if device.type == "cpu" else launch
        start(
            _main_or_exit,
            max(args.num_gpus, 1),
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )


def _main_or_exit(args: argparse.Namespace) -> None:
    # In a process of its own: an exception would reach the first process as text, a status reaches it as a number.
    status = run_command(main, args)
    if status:
        sys.exit(status)


def prepare(args: argparse.Namespace) -> CfgNode:
    """Check in the first process what would fail in all: config, device, names. Completes ``args.opts``.

    Raises:
        UserError: what is wrong, where, and what to do.
    """
    args.opts = parse_opts(args.opts)
    if args.num_gpus == 0 and "MODEL.DEVICE" not in args.opts[::2]:
        args.opts += ["MODEL.DEVICE", "cpu"]
    cfg = load_config(args.config_file, args.opts)
    setup_data(cfg)
    _check_device(cfg, args)
    if not args.eval_only:
        _check_class_count(cfg)
    return cfg


def setup_data(cfg: CfgNode) -> None:
    """Register the config's own split files and check that its data sets exist under their names.

    Raises:
        UserError: a name that is not registered; near matches are named.
    """
    register_split_files(cfg.DATASETS.SPLIT_FILES)
    known = DatasetCatalog.list()
    for key in ("TRAIN", "TEST"):
        for name in cfg.DATASETS[key]:
            if name not in known:
                near = get_close_matches(name, known, n=3)
                raise UserError(
                    f"DATASETS.{key} names the data set {name!r}, which is not registered"
                    + (f" (did you mean {', '.join(near)}?)" if near else "")
                    + ". Data sets of one's own are registered by a split file: DATASETS.SPLIT_FILES."
                )


def setup(cfg: CfgNode, args: argparse.Namespace) -> None:
    """In each process: the output folder, loggers, and the seed."""
    try:
        os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    except OSError as error:
        raise UserError(f"OUTPUT_DIR {cfg.OUTPUT_DIR!r} cannot be made: {error.strerror}.") from error
    default_setup(cfg, args)
    logging.getLogger("detectron2.engine.train_loop").addFilter(_mistake_in_one_line)
    for name in ("PADing", *cfg.PLUGINS):
        setup_logger(output=cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name=name)


def main(args: argparse.Namespace):
    """Train, or evaluate with ``--eval-only``, in one process of a job; returns the last evaluation's results."""
    cfg = load_config(args.config_file, args.opts)
    setup_data(cfg)
    if args.eval_only:
        setup(cfg, args)
        return _evaluate(cfg, args)
    with training_folder(cfg.OUTPUT_DIR, args.resume, args.overwrite):
        setup(cfg, args)
        return _train(cfg, args)


def _train(cfg: CfgNode, args: argparse.Namespace):
    # Imported here, so that a mistyped key is reported without waiting for everything that training needs.
    from PADing.engine.trainer import Trainer

    trainer = Trainer(cfg)
    _check_recipe(trainer.recipe, args)
    trainer.resume_or_load(resume=args.resume)
    if args.overwrite and comm.is_main_process():
        discard_training(cfg.OUTPUT_DIR)
    return trainer.train()


def _evaluate(cfg: CfgNode, args: argparse.Namespace):
    from PADing.engine.trainer import Trainer

    running = training_in(cfg.OUTPUT_DIR)
    if running:
        logging.getLogger(__name__).warning(
            "A training is running in %s (%s). It and this evaluation write results.json and inference/ there, the "
            "later one over the earlier. To keep both, set another OUTPUT_DIR.", cfg.OUTPUT_DIR, running,
        )  # fmt: skip
    model = Trainer.build_model(cfg)
    if not cfg.MODEL.WEIGHTS and not args.resume:
        logging.getLogger(__name__).warning("MODEL.WEIGHTS is empty, so a model with random weights is evaluated.")
    TrainingCheckpointer(model, save_dir=cfg.OUTPUT_DIR).resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


def _check_device(cfg: CfgNode, args: argparse.Namespace) -> None:
    if torch.device(cfg.MODEL.DEVICE).type != "cuda":
        return
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not present:
        raise UserError(
            "MODEL.DEVICE is 'cuda', but no GPU is available here. Add --num-gpus 0 to run on the CPU "
            "(or MODEL.DEVICE cpu)."
        )
    if not launched_by_torchrun() and args.num_gpus > present:
        raise UserError(f"--num-gpus is {args.num_gpus}, but this machine has {present}.")


def _mistake_in_one_line(record: logging.LogRecord) -> bool:
    """Logging filter: Detectron2 logs what ends the training with its traceback; a mistake needs its message alone."""
    if record.exc_info and isinstance(record.exc_info[1], UserError) and not shows_tracebacks():
        record.msg, record.args, record.exc_info = "%s", (message_of(record.exc_info[1]),), None
    return True


def _check_class_count(cfg: CfgNode) -> None:
    # A label beyond the outputs would end as an index error in the loss, or as a failed assertion on the GPU.
    for name in cfg.DATASETS.TRAIN:
        metadata = MetadataCatalog.get(name)
        classes = metadata.get("stuff_classes") or metadata.get("thing_classes") or ()
        if len(classes) > cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES:
            raise UserError(
                f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES}, but the training set {name} "
                f"has {len(classes)} classes."
            )


def _check_recipe(recipe, args: argparse.Namespace) -> None:
    name = type(recipe).__name__
    if args.recipes and name not in args.recipes:
        raise UserError(
            f"This script trains by the recipe {' or '.join(args.recipes)}, but the config asks for {name}. "
            "Use train_net.py."
        )
