"""Shared by the scripts in ``datasets/``: read and check annotation, write label PNGs, continue interrupted runs."""

import argparse
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from multiprocessing.pool import Pool

import numpy as np
from PIL import Image
from tqdm import tqdm

from PADing.command_line import positive
from PADing.data.coco_schema import check_panoptic
from PADing.files import read_json, replacing


def add_workers_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--workers N``, the number of processes that write label PNGs."""
    half = max((os.cpu_count() or 1) // 2, 1)
    parser.add_argument("--workers", type=positive, default=half, help="default: half the cores")


def read_annotation(path: str | os.PathLike, what: str, check: Callable = check_panoptic) -> dict:
    """Read a COCO JSON and check the fields that the scripts need; UserError begins with ``what``."""
    content = read_json(path, what)
    check(content, f"{what} {path}", complete=False)
    return content


def worker_pool(workers: int) -> Pool:
    """A pool of processes that leave Ctrl-C to the main one, which ends them; they would print tracebacks.

    There are at most twice as many as cores: ``--workers 100000`` would fill the memory and be no faster.
    """
    return multiprocessing.Pool(min(workers, 2 * (os.cpu_count() or 1)), signal.signal, (signal.SIGINT, signal.SIG_IGN))


def write_label_maps(make: Callable[[tuple], np.ndarray], jobs: Iterable[tuple], output: str, workers: int) -> None:
    """Write the label map of every job as a PNG, with a progress bar.

    Jobs whose file exists are skipped, so an interrupted run continues where it stopped. The first error ends the run.

    Args:
        make: an importable function, called with a job; returns its label map (H, W) uint8.
        jobs: tuples whose last item is the PNG to write.
        output: the folder of the PNGs, for the progress bar.
        workers: the number of processes.
    """
    jobs = list(jobs)
    missing = [job for job in jobs if not os.path.exists(job[-1])]
    description = os.path.basename(os.path.normpath(output))
    if len(missing) < len(jobs):
        description += f" ({len(jobs) - len(missing)} done before)"
    write = partial(_write, make)
    with worker_pool(workers) if workers > 1 and len(missing) > 1 else nullcontext() as pool:
        written = pool.imap_unordered(write, missing, chunksize=8) if pool else map(write, missing)
        for _ in tqdm(written, total=len(missing), desc=description, unit="file"):
            pass


def _write(make: Callable[[tuple], np.ndarray], job: tuple) -> None:
    labels = Image.fromarray(make(job))
    with replacing(job[-1]) as temporary:
        labels.save(temporary)
