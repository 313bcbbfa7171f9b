"""The largest memory that this process has used."""

import sys
from pathlib import Path


def memory_status(key: str) -> int | None:
    """A size in Linux's status of this process, in bytes, such as that of ``VmRSS``; None where it is not given."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":")), None)


def peak_memory() -> int:
    """Bytes of the machine's memory (resident set size) at the peak, of this process alone.

    Linux without ``/proc``, as in some sandboxes, also counts what the parent process had when it started this one.
    """
    peak = memory_status("VmHWM")
    if peak is not None:
        return peak
    import resource

    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024  # bytes there, KiB elsewhere
