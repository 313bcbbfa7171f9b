"""Chooses the backend: the one that the user forces, else a compiled one if available, else plain PyTorch."""

import logging
import os
import threading
from functools import cache

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
            path = build.library(kind)
            if path is None and not compile_if_missing:
                return build.missing(kind) or "not compiled yet"
            path = path or build.build(kind)
            if not hasattr(torch.ops.pading_msda, f"{kind}_forward"):  # a new build is loaded already
                torch.ops.load_library(str(path))
        except (build.Unavailable, OSError) as error:
            return str(error)
        _loaded.add(kind)
        return None


def available_backends() -> dict[str, str]:
    """``{backend: "ready" or the reason why not}``; compiles nothing."""
    return {kind: load(kind, compile_if_missing=False) or "ready" for kind in build.KINDS} | {"pytorch": "ready"}
