"""Files that are complete or not there at all, and work on many files that can be interrupted and resumed."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import Pool
from pathlib import Path

from tqdm import tqdm

__all__ = ["map_files", "replacing", "write_json"]


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; it takes its name when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, content: dict) -> None:
    """Write ``content`` as JSON; the file appears under its name only when complete."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(content, file)


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
