"""The command line of ``train_net.py`` and ``train_net_pretrain.py``."""

import argparse
import logging
import os
import sys
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

import PADing  # noqa: F401  registers the shipped data sets
from PADing.command_line import add_opts_flag, message_of, run_command, shows_tracebacks
from PADing.config import load_config, parse_opts, read_config
from PADing.config_values import as_one_message
from PADing.engine.checkpointer import TrainingCheckpointer
from PADing.engine.distributed import TIMEOUT, launch_on_cpus, launched_by_torchrun, torchrun_process_group
from PADing.engine.interruption import STOP, relayed_stop_signals
from PADing.engine.output_folder import (
    discard_training,
    keeping_config,
    refuse_to_replace,
    training_folder,
    training_in,
)
from PADing.errors import Interrupted, UserError


def cli(argv: Sequence[str] | None = None, recipes: Sequence[str] = ()) -> int:
    """Parse arguments, start the processes, train or evaluate; returns the exit status.

    A ``UserError`` ends as one message on stderr and status 2, with a traceback only when ``PADING_TRACEBACK=1``.

    Args:
        argv: arguments without the program's name; default ``sys.argv[1:]``.
        recipes: the training recipes that this script is for; empty: all.
    """
    parser = default_argument_parser()
    parser.add_argument("--overwrite", action="store_true", help="replace the training that OUTPUT_DIR holds")
    add_opts_flag(parser)
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
        with relayed_stop_signals():
            start(
                _main_or_exit,
                max(args.num_gpus, 1),
                num_machines=args.num_machines,
                machine_rank=args.machine_rank,
                dist_url=args.dist_url,
                args=(args,),
                timeout=TIMEOUT,
            )


def _main_or_exit(args: argparse.Namespace) -> None:
    # In a process of its own: an exception would reach the first process as text, a status reaches it as a number.
    status = run_command(main, args)
    if status:
        sys.exit(status)


def prepare(args: argparse.Namespace, needs: Collection[str] | None = None) -> CfgNode:
    """Check in the first process what would fail in all of them, later. Completes ``args.opts``.

    Args:
        args: ``config_file``, ``num_gpus``, ``opts``, and what else ``train_net.py`` has.
        needs: what the command needs, see ``PADing.engine.start_check``; default: training, or with
            ``args.eval_only`` evaluation.

    Raises:
        UserError: everything that is wrong, where, and what to do.
    """
    args.opts = parse_opts([*args.opts, *getattr(args, "more_opts", ())])
    if args.num_gpus is None:
        args.num_gpus = int(torch.cuda.is_available())
        if not args.num_gpus:
            logging.getLogger(__name__).info("No GPU is available here, so the CPU is used.")
    if args.num_gpus == 0 and "MODEL.DEVICE" not in args.opts[::2]:
        args.opts += ["MODEL.DEVICE", "cpu"]
    if not args.config_file and "MODEL.META_ARCHITECTURE" not in args.opts[::2]:
        raise UserError("--config-file is missing. Name a YAML file, such as configs/mini/panoptic-PADing.yaml.")
    cfg, problems = read_config(args.config_file, args.opts)
    # Imported here, so that an unreadable file is reported without waiting for everything that training needs.
    from PADing.engine.start_check import EVALUATION, TRAINING, start_problems

    if needs is None:
        needs = EVALUATION if args.eval_only else TRAINING
    if getattr(args, "resume", False) and os.path.isfile(os.path.join(cfg.OUTPUT_DIR, "last_checkpoint")):
        needs = set(needs) - {"weights"}  # MODEL.WEIGHTS is not read then
    problems += _process_problems(cfg, args)
    problems += start_problems(cfg, needs, _processes(args))
    if hasattr(args, "recipes") and not args.eval_only:
        problems += _training_problems(cfg, args)
    if problems:
        raise UserError(as_one_message(problems))
    return cfg


def _processes(args: argparse.Namespace) -> int:
    if launched_by_torchrun():
        return int(os.environ["WORLD_SIZE"])
    return max(args.num_gpus, 1) * max(getattr(args, "num_machines", 1), 1)


def setup(cfg: CfgNode, args: argparse.Namespace) -> None:
    """In each process: the output folder, loggers, and the seed."""
    try:
        os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    except OSError as error:
        raise UserError(f"OUTPUT_DIR {cfg.OUTPUT_DIR!r} cannot be made: {error.strerror}.") from error
    with keeping_config(cfg.OUTPUT_DIR) if args.eval_only and comm.is_main_process() else nullcontext():
        default_setup(cfg, args)
    logging.getLogger("detectron2.engine.train_loop").addFilter(_mistake_in_one_line)
    for name in ("PADing", *cfg.PLUGINS):
        setup_logger(output=cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name=name)


def main(args: argparse.Namespace):
    """Train, or evaluate with ``--eval-only``, in one process of a job; returns the last evaluation's results."""
    cfg = load_config(args.config_file, args.opts)
    with STOP.watch():
        if args.eval_only:
            setup(cfg, args)
            return _evaluate(cfg, args)
        with training_folder(cfg.OUTPUT_DIR, args.resume, args.overwrite):
            setup(cfg, args)
            return _train(cfg, args)


def _train(cfg: CfgNode, args: argparse.Namespace):
    from PADing.engine.trainer import Trainer

    try:
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        if args.overwrite and comm.is_main_process():
            discard_training(cfg.OUTPUT_DIR)
        return trainer.train()
    except Interrupted as stop:
        if not stop.told:
            logging.getLogger(__name__).warning("Stopped while loading, before the first iteration.")
        raise Interrupted(stop.number, told=True) from None


def _evaluate(cfg: CfgNode, args: argparse.Namespace):
    from PADing.engine.trainer import Trainer, compare_with_expected

    running = training_in(cfg.OUTPUT_DIR)
    if running:
        logging.getLogger(__name__).warning(
            "A training is running in %s (%s). It and this evaluation write results.json and inference/ there, the "
            "later one over the earlier. To keep both, set another OUTPUT_DIR.", cfg.OUTPUT_DIR, running,
        )  # fmt: skip
    model = Trainer.build_model(cfg)
    checkpointer = TrainingCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    if not cfg.MODEL.WEIGHTS and not checkpointer.resumed:
        logging.getLogger(__name__).warning("MODEL.WEIGHTS is empty, so a model with random weights is evaluated.")
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        compare_with_expected(cfg, results)
    return results


def _process_problems(cfg: CfgNode, args: argparse.Namespace) -> list[str]:
    """What is wrong with the flags that start processes, and with the device for this machine."""
    machines, rank = getattr(args, "num_machines", 1), getattr(args, "machine_rank", 0)
    problems = []
    if args.num_gpus < 0:
        problems.append(f"--num-gpus is {args.num_gpus}. Set a whole number of at least 0 (0: on the CPU).")
    if machines < 1:
        problems.append(f"--num-machines is {machines}. Set a whole number of at least 1.")
    elif not 0 <= rank < machines:
        problems.append(f"--machine-rank is {rank}. Set a number from 0 to {machines - 1}, one for each machine.")
    if not cfg.MODEL.DEVICE.startswith("cuda"):
        return problems
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not present:
        problems.append(
            f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}, but no GPU is available here. Add --num-gpus 0 to run on the CPU "
            "(or MODEL.DEVICE cpu)."
        )
    elif not launched_by_torchrun() and args.num_gpus > present:
        problems.append(f"--num-gpus is {args.num_gpus}, but this machine has {present}.")
    return problems


def _mistake_in_one_line(record: logging.LogRecord) -> bool:
    """Logging filter: Detectron2 logs what ends the training with its traceback; a mistake needs its message alone."""
    if record.exc_info and isinstance(record.exc_info[1], UserError) and not shows_tracebacks():
        record.msg, record.args, record.exc_info = "%s", (message_of(record.exc_info[1]),), None
    return True


def _training_problems(cfg: CfgNode, args: argparse.Namespace) -> list[str]:
    """What only the training scripts can get wrong: a config of the other one, a folder that holds a training."""
    from PADing.engine.recipes import TRAINING_RECIPE_REGISTRY
    from PADing.engine.start_check import recipe_name

    problems, name = [], recipe_name(cfg)
    if args.recipes and name not in args.recipes and name in TRAINING_RECIPE_REGISTRY:
        recipes = " or ".join(args.recipes)
        problems.append(f"This script trains by {recipes}, but the config asks for {name}. Use train_net.py.")
    try:
        refuse_to_replace(Path(cfg.OUTPUT_DIR), args.resume, args.overwrite)
    except UserError as error:
        problems.append(str(error))
    return problems
