"""``--find-batch-size``: the largest batch that fits, found by trials in processes of their own."""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from detectron2.config import CfgNode

from PADing.engine.batch_size_trial import STATUS_OUT_OF_MEMORY
from PADing.engine.start_check import checked_config
from PADing.errors import UserError

logger = logging.getLogger(__name__)

MOST = 1024  # micro-batches beyond this size are not tried
KILLED = (-9, 137)  # by the system, which does this if main memory runs out
# At a limit of memory, libraries may crash that use a block without a check whether they got it.
CRASHED = (-11, -6)  # by SIGSEGV, SIGABRT
GIB = 2**30


class Trial(NamedTuple):
    """One batch size: whether two iterations survived, and what they needed."""

    images: int
    fits: bool
    peak: float = 0.0  # bytes
    speed: float = 0.0  # images per second


def find_batch_size(args: argparse.Namespace) -> str:
    """Try batches for the config of a command line, and return a table with a suggestion.

    Raises:
        UserError: as ``checked_config``; several processes; not even the smallest batch fits; a trial failed for
            another reason.
    """
    for flag in ("resume", "overwrite", "eval_only", "fast_dev_run"):
        if getattr(args, flag, False):
            raise UserError(f"--find-batch-size does not train. Leave out --{flag.replace('_', '-')}.")
    args.overwrite = True  # nothing is written to OUTPUT_DIR, so a training there is no mistake
    cfg = checked_config(args)
    if args.num_gpus > 1 or args.num_machines > 1:
        problem = "--find-batch-size tries one process."
        raise UserError(f"{problem} Use --num-gpus 1, and multiply the batch by the number of GPUs.")
    on_cpu = cfg.MODEL.DEVICE == "cpu"
    if args.memory_limit is not None and not on_cpu:
        raise UserError("--memory-limit is for the CPU. On a GPU its own memory is the limit.")
    if args.memory_limit is None and on_cpu:
        cure = "Without a limit, the search would take the memory of everything else that runs."
        raise UserError(f"On the CPU, --find-batch-size needs --memory-limit GIB, such as --memory-limit 8. {cure}")
    limit = None if args.memory_limit is None else int(args.memory_limit * GIB)
    trials = list(search(lambda images: try_batch(args, images, limit), unit=cfg.SOLVER.ACCUMULATE))
    return report(cfg, trials)


def search(attempt: Callable[[int], Trial], unit: int = 1, most: int = MOST) -> Iterator[Trial]:
    """Double from ``unit`` until a trial fails, then bisect; ``unit`` times ``most`` is the largest."""
    good, bad, size = 0, 0, 1
    while size <= most:
        trial = attempt(size * unit)
        yield trial
        if not trial.fits:
            bad = size
            break
        good, size = size, size * 2
    while bad - good > 1:
        middle = (good + bad) // 2
        trial = attempt(middle * unit)
        yield trial
        good, bad = (middle, bad) if trial.fits else (good, middle)


def try_batch(args: argparse.Namespace, images: int, limit: int | None) -> Trial:
    """Two iterations with ``images`` per batch in a new process; UserError if it fails for want of something else."""
    logger.info("Trying a batch of %d.", images)
    with tempfile.TemporaryDirectory() as folder:
        request, result = Path(folder, "request.json"), Path(folder, "result.json")
        opts = [*args.opts, "SOLVER.IMS_PER_BATCH", images, "SOLVER.REFERENCE_WORLD_SIZE", 0]
        asked = {"config_file": args.config_file, "opts": opts, "memory_limit": limit}
        request.write_text(json.dumps(asked), encoding="utf-8")
        command = [sys.executable, "-m", "PADing.engine.batch_size_trial", str(request), str(result)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode == STATUS_OUT_OF_MEMORY or done.returncode in KILLED:
            return Trial(images, False)
        last = "\n".join(done.stderr.strip().splitlines()[-6:])
        if limit is not None and done.returncode in CRASHED:
            logger.warning(
                "A batch of %d crashed at the limit, and counts as out of memory. If it crashes with a far higher "
                "--memory-limit, too, memory is not the reason. Its last lines:\n%s",
                images,
                last,
            )
            return Trial(images, False)
        if done.returncode or not result.is_file():
            raise UserError(f"The trial of a batch of {images} failed, but not for want of memory:\n{last}")
        found = json.loads(result.read_text(encoding="utf-8"))
    return Trial(images, True, found["peak"], found["images_per_second"])


def report(cfg: CfgNode, trials: list[Trial]) -> str:
    """The table of all trials by size, and the settings for the largest batch that fits; UserError if none does."""
    fitting = [trial for trial in trials if trial.fits]
    if not fitting:
        cure = "Make images smaller (INPUT.IMAGE_SIZE), or see docs/training.md, section Memory."
        raise UserError(f"Not even a batch of {trials[0].images} fits into the memory. {cure}")
    lines = ["images  peak memory (GiB)  images/s"]
    for trial in sorted(trials):
        values = f"{trial.peak / GIB:17.2f}  {trial.speed:8.2f}" if trial.fits else f"{'out of memory':>17}  {'-':>8}"
        lines.append(f"{trial.images:6d}  {values}")
    best = max(fitting)
    beyond = " (larger ones were not tried)" if all(trial.fits for trial in trials) else ""
    lines.append(f"\nThe largest batch that fits has {best.images} images{beyond}. Images with more objects need more:")
    lines.append("leave a margin.")
    return "\n".join([*lines, *_suggestions(cfg, best.images)])


def _suggestions(cfg: CfgNode, largest: int) -> Iterator[str]:
    solver = cfg.SOLVER
    factor = largest / solver.IMS_PER_BATCH
    scaled = {"IMS_PER_BATCH": largest, "BASE_LR": f"{solver.BASE_LR * factor:.6g}"}
    scaled["MAX_ITER"] = max(round(solver.MAX_ITER / factor), 1)
    if solver.RECIPE == "GeneratorClassifier" or cfg.MODEL.META_ARCHITECTURE == "PADing":
        scaled["GENERATOR_LR"] = f"{solver.GENERATOR_LR * factor:.6g}"
    settings = " ".join(f"SOLVER.{key} {value}" for key, value in scaled.items())
    yield f"With learning rate and length scaled by the batch: {settings}"
    yield "Scale SOLVER.STEPS and SOLVER.WARMUP_ITERS as SOLVER.MAX_ITER."
    if largest < solver.IMS_PER_BATCH:
        at_once = largest // solver.ACCUMULATE
        parts = next(n for n in range(1, solver.IMS_PER_BATCH + 1) if solver.IMS_PER_BATCH % n == 0
                     and solver.IMS_PER_BATCH // n <= at_once)  # fmt: skip
        yield f"To keep the batch of {solver.IMS_PER_BATCH} and all other settings: SOLVER.ACCUMULATE {parts}"
