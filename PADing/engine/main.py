"""What ``train_net.py`` and ``train_net_pretrain.py`` do: check, start processes, train or evaluate."""

import argparse
import logging
import os
import sys
from contextlib import nullcontext
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_setup, launch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from PADing.command_line import message_of, run_command, shows_tracebacks
from PADing.commands.train import main
from PADing.config import load_config, parse_opts
from PADing.engine.batch_size import find_batch_size
from PADing.engine.checkpointer import TrainingCheckpointer, last_checkpoint
from PADing.engine.determinism import deterministic
from PADing.engine.distributed import TIMEOUT, launch_on_cpus, launched_by_torchrun, torchrun_process_group
from PADing.engine.environment import record_run
from PADing.engine.fast_dev_run import shorten
from PADing.engine.interruption import STOP
from PADing.engine.job_watch import report_of_another, watched_job
from PADing.engine.memory import explaining_memory
from PADing.engine.output_folder import LOCK_TIMEOUT, discard_training, keeping_config, training_folder, training_in
from PADing.engine.relay import relayed_stop_signals, shared_patience
from PADing.engine.restart import Restart
from PADing.engine.slurm import adopt_srun
from PADing.engine.start_check import checked_config
from PADing.engine.torchrun import ending_with_torchrun, wait_for_own_signal
from PADing.engine.weight_average import choice_of_weights
from PADing.errors import Interrupted, UserError
from PADing.progress import fits_terminal, on_terminal
from PADing.sharing.places import local_config

__all__ = ["main", "start", "train_or_evaluate"]

logger = logging.getLogger(__name__)

# Seconds to wait for the output folder when torchrun has started the processes again: one of another machine that has
# lost its torchrun may still be there.
RESTART_PATIENCE = 30.0


def start(args: argparse.Namespace) -> None:
    """Check everything once (``checked_config``), then run ``train_or_evaluate`` in each process of the job.

    Besides the flags, ``args`` may have ``needs``, see ``checked_config``, and ``trainer``, a function of the config
    that returns another class of trainer, for one process.
    """
    if args.deterministic:
        args.opts, args.more_opts = [*parse_opts([*args.opts, *args.more_opts]), "DETERMINISTIC", True], []
    if args.find_batch_size:
        print(find_batch_size(args))
        return
    if args.memory_limit is not None:
        raise UserError("--memory-limit is a flag for --find-batch-size. Leave it out, or add that flag.")
    adopt_srun(args)
    if args.fast_dev_run:
        shorten(args)
    cfg = checked_config(args, getattr(args, "needs", None))
    cpu = torch.device(cfg.MODEL.DEVICE).type == "cpu"
    processes = max(args.num_gpus, 1)
    if launched_by_torchrun():
        with ending_with_torchrun(), torchrun_process_group(cpu):
            train_or_evaluate(args)
    elif processes * args.num_machines <= 1:
        train_or_evaluate(args)
    else:
        patience = shared_patience()
        job = (processes, args.num_machines, args.machine_rank, args.dist_url, (args, patience))
        with relayed_stop_signals(patience, lambda: "" if args.eval_only else _what_is_saved(cfg.OUTPUT_DIR)):
            try:
                (launch_on_cpus if cpu else launch)(_in_process, *job, timeout=TIMEOUT)
            except torch.multiprocessing.ProcessExitedException as error:
                error.rank = args.machine_rank * processes + error.error_index  # type: ignore[attr-defined]  # for the message
                raise


def _what_is_saved(folder: str) -> str:
    try:
        name = last_checkpoint(folder)
    except UserError as error:
        return str(error)
    if not name:
        return f"No checkpoint is saved in {folder}."
    return f"The last checkpoint, {os.path.join(folder, name)}, is saved: --resume continues from it."


def _in_process(args: argparse.Namespace, patience: Any) -> None:
    STOP.patience = patience
    # The parent gets an exception as text only, but an exit status as a number.
    if status := run_command(train_or_evaluate, args):
        sys.exit(status)


def train_or_evaluate(args: argparse.Namespace):
    """Train, or evaluate with ``--eval-only``, in one process of a job; returns the last evaluation's results."""
    cfg = load_config(args.config_file, args.opts)
    bar = comm.is_main_process() and not args.no_progress_bar and fits_terminal()
    memory = explaining_memory(cfg, training=not args.eval_only)
    with STOP.watch(), watched_job(), on_terminal(bar), memory, deterministic(cfg):
        if args.eval_only:
            with keeping_config(cfg.OUTPUT_DIR) if comm.is_main_process() else nullcontext():
                _set_up(cfg, args)
            return _evaluate(cfg, args)
        restart = Restart(cfg)
        if restart.known and restart.owns:  # started again by torchrun, which knows the flags of the first start only
            args.resume, args.overwrite = True, False
        patience = RESTART_PATIENCE if restart.known else LOCK_TIMEOUT
        with training_folder(cfg.OUTPUT_DIR, args.resume, args.overwrite, restart.problems(), patience):
            if comm.is_main_process():
                restart.write(owns=not args.overwrite)
            _set_up(cfg, args)
            restart.report()
            return _train(cfg, args, restart)


def _set_up(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Set up the output folder, the loggers and the seed."""
    try:
        os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    except OSError as error:
        raise UserError(f"OUTPUT_DIR {cfg.OUTPUT_DIR!r} cannot be made: {error.strerror}.") from error
    # It logs the content of the config file.
    default_setup(cfg, argparse.Namespace(**{**vars(args), "config_file": local_config(args.config_file)}))
    logging.getLogger("detectron2.engine.train_loop").addFilter(_failure_in_one_line)
    for name in ("PADing", *cfg.PLUGINS):
        setup_logger(output=cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name=name)
    if comm.is_main_process():
        kind = "evaluation" if args.eval_only else "resumed training" if args.resume else "training"
        record_run(cfg, kind, fresh=args.overwrite and not args.eval_only)


def _failure_in_one_line(record: logging.LogRecord) -> bool:
    """Logging filter: no traceback in the line for a ``UserError``, or for the failure of another process."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, UserError) and not shows_tracebacks():
        record.msg, record.args, record.exc_info = "%s", (message_of(error),), None
    elif error is not None and (report := report_of_another(error)):
        first = report.partition("\n")[0].rstrip(":.")
        record.msg, record.args, record.exc_info = "This process ends: %s.", (first[0].lower() + first[1:],), None
    return True


def _train(cfg: CfgNode, args: argparse.Namespace, restart: Restart):
    try:
        trainer = _trainer_type(cfg, args)(cfg)
        trainer.least_shares = restart.processes
        trainer.resume_or_load(resume=args.resume)
        if args.overwrite and comm.is_main_process():
            discard_training(cfg.OUTPUT_DIR)
            restart.write(owns=True)
        return trainer.train()
    except Interrupted as stop:
        if not stop.told:
            logger.warning("Stopped while loading, before the first iteration.")
        wait_for_own_signal(lambda: STOP.number)
        raise Interrupted(stop.number, told=True) from None


def _trainer_type(cfg: CfgNode, args: argparse.Namespace):
    from PADing.engine.trainer import Trainer  # imported late, so that mistakes are reported fast

    choose = getattr(args, "trainer", None)
    return choose(cfg) if choose else Trainer


def _evaluate(cfg: CfgNode, args: argparse.Namespace):
    from PADing.engine.trainer import compare_with_expected

    if running := training_in(cfg.OUTPUT_DIR):
        logger.warning(
            "A training is running in %s (%s). Both it and this evaluation write results.json and inference/ there, "
            "so the later one replaces the earlier. To keep both, set another OUTPUT_DIR.", cfg.OUTPUT_DIR, running,
        )  # fmt: skip
    kind = _trainer_type(cfg, args)
    model = kind.build_model(cfg)
    checkpointer = TrainingCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
    checkpointer.weights_from = choice_of_weights(cfg, training=False)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    if not cfg.MODEL.WEIGHTS and not checkpointer.resumed:
        logger.warning("MODEL.WEIGHTS is empty, so the evaluated model has random weights.")
    results = kind.test(cfg, model, averaged=checkpointer.averaged)
    if comm.is_main_process():
        compare_with_expected(cfg, results)
    return results
