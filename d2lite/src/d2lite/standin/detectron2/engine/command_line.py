"""The command line of a training script, and the setup of each process."""

import argparse
import contextlib
import logging
import os
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

EXAMPLES = """\
Eight GPUs of this machine:
    %(prog)s --config-file FILE --num-gpus 8
With other values than the file's:
    %(prog)s --config-file FILE SOLVER.BASE_LR 0.001 MODEL.WEIGHTS FILE.pth
The second of two machines (on the first: --machine-rank 0):
    %(prog)s --config-file FILE --num-gpus 8 --num-machines 2 --machine-rank 1 --dist-url tcp://FIRST-MACHINE:PORT
"""


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """A parser with the flags of Detectron2's training scripts; ``epilog`` ends the help page."""
    # Different ports for jobs of different users.
    port = 49152 + hash(getattr(os, "getuid", lambda: 1)()) % 16384
    parser = argparse.ArgumentParser(
        epilog=EXAMPLES if epilog is None else epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_argument_group("what to do")
    what.add_argument("--config-file", metavar="FILE", default="", help="YAML file with the settings")
    what.add_argument("--resume", action="store_true", help="go on from the last checkpoint in OUTPUT_DIR, if any")
    what.add_argument("--eval-only", action="store_true", help="do not train, evaluate the weights")
    where = parser.add_argument_group("where to do it")
    where.add_argument("--num-gpus", metavar="N", type=int, default=1, help="processes a machine (%(default)s)")
    where.add_argument("--num-machines", metavar="N", type=int, default=1, help="machines of the job (%(default)s)")
    where.add_argument("--machine-rank", metavar="I", type=int, default=0, help="this machine's number, from 0")
    where.add_argument(
        "--dist-url", metavar="URL", default=f"tcp://127.0.0.1:{port}", help="meeting point of processes (%(default)s)"
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, default=None, help="settings to change: KEY VALUE ...")
    return parser


def default_setup(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Prepare a process: ``OUTPUT_DIR`` (if not empty) with logs and ``config.yaml``, seed, PyTorch's settings.

    ValueError if ``SEED`` plus the rank is above 2**32 - 1. ``args`` are logged; their ``config_file`` and
    ``eval_only`` are used if they are there.
    """
    rank, folder = comm.get_rank(), cfg.OUTPUT_DIR or None
    if folder:
        os.makedirs(folder, exist_ok=True)
    for name in ("detectron2", "fvcore"):
        setup_logger(folder, rank, name=name)
    logger = logging.getLogger("detectron2")
    logger.info("Rank of current process: %d. World size: %d", comm.get_rank(), comm.get_world_size())
    logger.info("Environment info:\n%s", collect_env_info())
    logger.info("Command line arguments: %s", args)
    path = getattr(args, "config_file", None)
    if path:
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            logger.info("Config file %s:\n%s", path, file.read())
    if comm.is_main_process():
        logger.info("Running with full config:\n%s", cfg.dump())
        if folder:
            _write(os.path.join(folder, "config.yaml"), cfg.dump())
            logger.info("Full config saved to %s", os.path.join(folder, "config.yaml"))

    # The rank is added because augmentations should differ between processes.
    seed_all_rng(cfg.SEED + rank if cfg.SEED >= 0 else None)
    if not getattr(args, "eval_only", False):
        # In evaluation, images have many sizes, and a search for the best algorithm costs more than it saves.
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    if cfg.FLOAT32_PRECISION:
        torch.set_float32_matmul_precision(cfg.FLOAT32_PRECISION)


def _write(path: str, text: str) -> None:
    stem, suffix = os.path.splitext(os.path.basename(path))
    # Hidden, with eight characters: tools that clean up behind killed processes know this form of a temporary name.
    temporary = Path(path).with_name(f".{stem}.{os.getpid():08d}.tmp{suffix}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)  # a reader never sees half a file
    finally:
        temporary.unlink(missing_ok=True)
