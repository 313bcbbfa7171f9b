"""Temporary files and folders that killed processes have left: nobody else would ever remove them.

The names are those that ``PADing.files`` gives. Their process holds a lock on each, which the system ends with it.
"""

import logging
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

# Also a lock on another machine may be invisible here; but what nobody has changed for an hour is not in use.
SECONDS = 3600.0
_NAME = re.compile(r"\..*\.[a-z0-9_]{8}\.tmp(\.[^.]*)?", re.S)
_looked: set[Path] = set()


def hold(path: str | os.PathLike, handle: int | None = None) -> int | None:
    """Lock a new temporary file or folder for this process; returns what ``release`` needs, None without locks.

    ``handle``: of the opened file, which is closed by ``release``, or here if there are no locks.
    """
    if fcntl is None:  # where an open file cannot be renamed, either
        if handle is not None:
            os.close(handle)
        return None
    try:
        handle = os.open(path, os.O_RDONLY) if handle is None else handle
    except OSError:
        return None
    with suppress(OSError):  # this file system has no locks
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle


def release(handle: int | None) -> None:
    """End a lock of ``hold``."""
    if handle is not None:
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes have left in ``folder``; only the first call for a folder looks."""
    folder = Path(os.path.abspath(folder))
    if fcntl is None or folder in _looked:
        return
    _looked.add(folder)
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if _NAME.fullmatch(entry.name)]
    except OSError:
        return
    for name in names:
        with suppress(OSError):
            _remove(folder / name)


def _remove(path: Path) -> None:
    status = path.lstat()
    is_folder = path.is_dir() and not path.is_symlink()
    if abs(time.time() - status.st_mtime) < SECONDS or not (is_folder or path.is_file()):
        return
    # Some network file systems lock files alone that are open for writing; those folders stay.
    handle = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_folder:
            shutil.rmtree(path)
        else:
            path.unlink()
    finally:
        os.close(handle)
    logger.info("Removed %s, which a killed process has left.", path)
