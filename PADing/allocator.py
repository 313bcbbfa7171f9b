"""How much memory the C library keeps for the next large tensors, on Linux with glibc.

Without this, glibc gives each block of more than 32 MiB back to the system at once. The kernel then provides new pages,
filled with zeros, for the next such block. This costs 5 to 11 % of the time of a network on a CPU (docs/benchmarks.md).
"""

import ctypes
import os
import sys
from functools import cache

KEPT = 512 * 2**20  # bytes at the end of the heap
GROWN = 2 * KEPT  # bytes that a process may grow until all free memory is given back
# Of <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
USUAL = {M_MMAP_THRESHOLD: 2**25, M_TRIM_THRESHOLD: 2**26, M_MMAP_MAX: 2**16}  # what glibc comes to by itself
# Variables of glibc with which a user makes another choice.
CHOICES = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")

_least: int | None = None  # of the sizes that trim_memory has seen


def keep_memory() -> None:
    """Let this process keep ``KEPT`` free bytes at the end of its heap, unless a variable of glibc says otherwise.

    Its forked children, such as the workers that load data, do not: there may be many.
    """
    library = _glibc()
    if library is not None:
        _choose(library, {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: KEPT})
        os.register_at_fork(after_in_child=lambda: _choose(library, USUAL))


def trim_memory() -> None:
    """Give all free memory back if the process has grown by ``GROWN`` bytes since the call at which it was smallest.

    By itself, glibc keeps free memory between blocks in use for ever. Images of many sizes leave much of it, because
    few blocks fit where others were.
    """
    global _least
    library = _glibc()
    if library is None:
        return
    now = _resident()
    _least = min(now, _least or now)
    if now - _least > GROWN:
        library.malloc_trim(0)
        _least = _resident()


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is glibc's and the user leaves the choice to this program."""
    chosen = any(name in os.environ for name in CHOICES) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if sys.platform != "linux" or chosen:
        return None
    try:
        library = ctypes.CDLL(None)
        return library if all(hasattr(library, name) for name in ("mallopt", "malloc_trim")) else None
    except OSError:
        return None


def _choose(library: ctypes.CDLL, values: dict[int, int]) -> None:
    for option, value in values.items():
        library.mallopt(option, value)


def _resident() -> int:
    """Bytes of this process in the machine's memory; 0 if the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
