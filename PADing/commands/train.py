"""The command of ``train_net.py`` and ``train_net_pretrain.py``: its flags, read before anything slow is imported."""

import argparse
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from PADing.command_line import add_opts_flag, gibibytes, run_command
from PADing.errors import refuse
from PADing.requeue import NOTICES, requeue_status, status_problem

EXAMPLES = """\
Eight GPUs of this machine:
    %(prog)s --config-file FILE --num-gpus 8
With other values than the file's:
    %(prog)s --config-file FILE SOLVER.BASE_LR 0.001 MODEL.WEIGHTS FILE.pth
The second of two machines (on the first: --machine-rank 0):
    %(prog)s --config-file FILE --num-gpus 8 --num-machines 2 --machine-rank 1 --dist-url tcp://FIRST-MACHINE:PORT
"""


def main(argv: Sequence[str] | None = None, recipes: Sequence[str] = (), description: str | None = None) -> int:
    """Parse ``argv``, start the processes, train or evaluate; returns the exit status of ``PADing.command_line``.

    Args:
        argv: the flags; None: those of the command line.
        recipes: the training recipes that the script accepts; empty: all.
        description: for ``--help``.
    """
    parser = training_parser(description)
    args = parser.parse_args(argv)
    args.recipes = tuple(recipes)
    if args.num_machines == 1 and args.dist_url == parser.get_default("dist_url"):
        args.dist_url = "auto"  # any free port, so that a user can run several jobs on one machine
    with _early_notices():
        return run_command(_start, args)


@contextmanager
def _early_notices() -> Iterator[None]:
    """Inside, a scheduler's notice ends the process with the status for another start, until somebody handles it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _leave) for number in NOTICES}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, _) -> None:
    os.write(2, f"\nStopped by {signal.Signals(number).name}. No training is running.\n".encode())
    os._exit(requeue_status())


def _start(args: argparse.Namespace) -> None:
    refuse([problem] if (problem := status_problem()) else [])
    from PADing.engine.main import start  # imports PyTorch

    start(args)


def training_parser(description: str | None = None) -> argparse.ArgumentParser:
    """A parser with the flags of Detectron2's training scripts, whose own parser comes with PyTorch, and more."""
    # Different ports for jobs of different users.
    port = 49152 + hash(getattr(os, "getuid", lambda: 1)()) % 16384
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, epilog=EXAMPLES, formatter_class=kind)
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
    parser.add_argument("--overwrite", action="store_true", help="replace the training that OUTPUT_DIR holds")
    text = "try the config: 3 iterations, a checkpoint, evaluation on 4 images, in <OUTPUT_DIR>_fast_dev_run"
    parser.add_argument("--fast-dev-run", action="store_true", help=text)
    text = "repeat bit by bit with the same SEED, threads and machine (DETERMINISTIC True)"
    parser.add_argument("--deterministic", action="store_true", help=text)
    text = "do not train, but try in new processes how large a batch fits into the memory"
    parser.add_argument("--find-batch-size", action="store_true", help=text)
    text = "main memory that a trial of --find-batch-size may take on the CPU"
    parser.add_argument("--memory-limit", type=gibibytes, metavar="GIB", help=text)
    text = "no progress bar on the terminal; lines alone"
    parser.add_argument("--no-progress-bar", action="store_true", help=text)
    add_opts_flag(parser)
    return parser
