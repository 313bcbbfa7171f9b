"""Chooses the backend: the one that the user forces, else a compiled one if available, else plain PyTorch."""

import logging
import os
import threading
from functools import cache
from pathlib import Path

import torch

from PADing.errors import UserError

from . import build

logger = logging.getLogger(__name__)

ENVIRONMENT = "PADING_MSDA_BACKEND"
BACKENDS = ("cuda", "cpu", "pytorch")

_lock = threading.Lock()
_loaded: set[str] = set()


def select(device_type: str) -> str:
    """The backend for tensors on a type of device: ``"cuda"``, ``"cpu"`` or ``"pytorch"``.

    ``PADING_MSDA_BACKEND`` forces one. Otherwise a missing kernel is logged once, and plain PyTorch is used.

    Raises:
        UserError: the forced backend is unknown, does not run on this device, or is not available.
    """
    return _select(device_type, os.environ.get(ENVIRONMENT, ""))


@cache
def _select(device_type: str, forced: str) -> str:
    if forced and forced not in BACKENDS:
        raise UserError(f"{ENVIRONMENT}={forced!r} is not a backend; choose one of {', '.join(BACKENDS)}, or unset it.")
    if forced == "pytorch" or (not forced and device_type not in build.KINDS):
        return "pytorch"
    if forced and forced != device_type:
        raise UserError(f"{ENVIRONMENT}={forced}, but the tensors are on {device_type}. Unset it or move the model.")
    reason = load(device_type)
    if reason is None:
        return device_type
    if forced:
        raise UserError(f"{ENVIRONMENT}={forced} is not available: {reason}. To build it: {build.BUILD_COMMAND}")
    message = (
        "ms_deform_attn runs in plain PyTorch on %s, many times slower than the compiled kernel, "
        "which was skipped: %s. To build it: %s"
    )
    logger.warning(message, device_type.upper(), reason, build.BUILD_COMMAND)
    return "pytorch"


def load(kind: str, compile_if_missing: bool = True) -> str | None:
    """Load the operators of a compiled backend; returns None on success, else the reason. Never raises."""
    with _lock:
        if kind in _loaded:
            return None
        try:
            reason = _load_compiled(kind)
            if reason and compile_if_missing:
                reason = _open(kind, build.build(kind))
        except (build.Unavailable, OSError) as error:
            reason = str(error)
        if reason is None:
            _loaded.add(kind)
        return reason


def _load_compiled(kind: str) -> str | None:
    """Load a library that is there; returns None on success, else the reason."""
    reason = build.missing(kind) or "not compiled yet"
    for path in build.libraries(kind):
        problem = build.damage(path) or _open(kind, path)
        if problem is None:
            return None
        reason = f"{path} {problem}"
        logger.warning("Not used: the kernel of ms_deform_attn in %s", reason)
    return reason


def _open(kind: str, path: Path) -> str | None:
    """Register the library's operators; returns None on success, else the reason."""
    if hasattr(torch.ops.pading_msda, f"{kind}_forward"):  # another copy of this package has loaded them
        return None
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        build.discard(path)
        return f"cannot be opened: {error}"
    return None


def available_backends() -> dict[str, str]:
    """``{backend: "ready" or the reason why not}``; compiles nothing."""
    return {kind: load(kind, compile_if_missing=False) or "ready" for kind in build.KINDS} | {"pytorch": "ready"}
