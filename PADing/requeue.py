"""Signals by which a scheduler announces the end of a job, and the exit status that asks it for another start."""

import os
import signal
from collections.abc import Mapping

# Where there are no real-time signals, SIGUSR1 and SIGUSR2 have another use (``PADing.engine.interruption``).
# SIGUSR1 and SIGUSR2: what users choose (sbatch --signal, submitit). SIGXCPU: the kernel, once a second, when a limit
# of processor time is reached; SLURM hands the limits of the user's shell on to the job.
NOTICES: tuple[int, ...] = ()
if hasattr(signal, "SIGRTMIN"):
    NOTICES = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)

VARIABLE = "PADING_REQUEUE_STATUS"
STATUS = 75  # EX_TEMPFAIL of sysexits.h: try again
# 1, 2 and those from 126 on have another meaning, and a script must not start a failed job again and again.
ALLOWED = range(3, 126)


def requeue_status(environment: Mapping[str, str] = os.environ) -> int:
    """The exit status of a job that a notice has stopped; ``PADING_REQUEUE_STATUS`` or 75."""
    text = environment.get(VARIABLE, "")
    return int(text) if text.isascii() and text.isdigit() and int(text) in ALLOWED else STATUS


def status_problem(environment: Mapping[str, str] = os.environ) -> str:
    """What is wrong with ``PADING_REQUEUE_STATUS``, as a message; "" if nothing is."""
    text = environment.get(VARIABLE, "")
    if not text or str(requeue_status(environment)) == text:
        return ""
    return f"{VARIABLE} is {text!r}. Set a whole number from {ALLOWED[0]} to {ALLOWED[-1]}, or unset it for {STATUS}."
