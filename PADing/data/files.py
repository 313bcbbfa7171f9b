"""Work on many files that can be interrupted and resumed."""

import os
from collections.abc import Callable, Iterable
from multiprocessing import Pool

from tqdm import tqdm

__all__ = ["map_files"]


def map_files(function: Callable, jobs: Iterable[tuple], workers: int, description: str) -> None:
    """Call ``function(job)`` for every job, in ``workers`` processes, with a progress bar.

    ``job[-1]`` is the file that a job writes (through ``replacing``); a job whose file exists is skipped. So an
    interrupted run goes on where it stopped. The first error ends the run.
    """
    jobs = list(jobs)
    missing = [job for job in jobs if not os.path.exists(job[-1])]
    if len(missing) < len(jobs):
        description = f"{description} ({len(jobs) - len(missing)} done before)"
    with tqdm(total=len(missing), desc=description, unit="file") as bar:
        if workers <= 1 or len(missing) <= 1:
            for job in missing:
                function(job)
                bar.update()
        else:
            with Pool(workers) as pool:
                for _ in pool.imap_unordered(function, missing, chunksize=8):
                    bar.update()
