"""The largest memory that this process has used."""

import sys
from pathlib import Path


def peak_memory() -> int:
    """Bytes of the machine's memory (resident set size) at the peak, of this process alone.

    On Linux, ``getrusage`` also counts what the parent process had when it started this one.
    """
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    import resource

    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024  # bytes there, KiB elsewhere
