"""Finds and compiles the extensions. Imports nothing of this project, because setup.py runs it alone.

An extension is a shared library with PyTorch operators, without Python. Libraries that are built ahead of time are in
``lib/`` beside this file, those that are built on first use in the user's cache. The file name includes a hash of all
that a build depends on, so a stale library is never loaded. Neither is a library that another user could have placed
there.
"""

import atexit
import contextlib
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock  # which torch depends on

logger = logging.getLogger(__name__)

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "src"
KINDS = ("cpu", "cuda")
CACHE = "pading-msda"
BUILD_COMMAND = f"sh {HERE / 'make.sh'}"


class Unavailable(RuntimeError):
    """The extension is not available on this machine; the message tells the user why."""


def library(kind: str) -> Path | None:
    """The path of the compiled extension; None if there is none that may be loaded."""
    ahead = HERE / "lib" / library_name(kind)  # trusted as this code: both are in the same folder
    if ahead.is_file():
        return ahead
    with contextlib.suppress(Unavailable):
        cached = cache_folder() / library_name(kind)
        if cached.is_file() and not _foreign(cached):
            return cached
    return None


def library_name(kind: str) -> str:
    """The file name of an extension, with a hash of everything that a build depends on."""
    digest = hashlib.sha256()
    for path in sorted((SOURCES / kind).iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    digest.update(repr((_flags(kind), torch.version.cuda, os.environ.get("TORCH_CUDA_ARCH_LIST"))).encode())
    return f"msda_{kind}-torch{torch.__version__}-{sys.platform}-{platform.machine()}-{digest.hexdigest()[:12]}.so"


def cache_folder() -> Path:
    """The folder of extensions built on first use: under $TORCH_EXTENSIONS_DIR, $XDG_CACHE_HOME or ~/.cache.

    Raises:
        Unavailable: the folder cannot be written to, or another user could place a library there.
    """
    base = os.environ.get("TORCH_EXTENSIONS_DIR") or os.environ.get("XDG_CACHE_HOME")
    base = base or os.path.join(os.path.expanduser("~"), ".cache")
    if base.startswith("~"):  # no HOME, and a user id without a name
        raise Unavailable("there is no home folder")
    folder = Path(os.path.realpath(base), CACHE)
    reason = _foreign(folder)
    if not reason and not os.access(next(place for place in (folder, *folder.parents) if place.exists()), os.W_OK):
        reason = f"{folder} cannot be written"
    if reason:
        raise Unavailable(reason)
    return folder


def _foreign(path: Path) -> str | None:
    """Why another user (not root) could have placed something at ``path``; None if that is impossible.

    ``path`` and the folders above it must belong to this user or root. Only the owner may write to ``path`` and the
    cache folder. Folders above must not be writable for everybody, except for sticky ones such as /tmp.
    """
    if not hasattr(os, "geteuid"):  # Windows keeps a user's folders private by other means
        return None
    for place in (path, *path.parents):
        try:
            status = place.lstat()
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"{place} cannot be examined: {error}"
        if stat.S_ISLNK(status.st_mode):
            return f"{place} is a symbolic link"
        if status.st_uid not in (os.geteuid(), 0):
            return f"{place} belongs to another user (id {status.st_uid})"
        ours = place == path or place.name == CACHE
        others = stat.S_IWOTH | stat.S_IWGRP if ours else stat.S_IWOTH
        if status.st_mode & others and not (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX):
            return f"{place} can be changed by other users (mode {stat.S_IMODE(status.st_mode):o})"
    return None


@cache
def _private_folder() -> Path:
    """A new folder for this process alone, removed when it ends."""
    folder = tempfile.mkdtemp(prefix=f"{CACHE}-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def missing(kind: str) -> str | None:
    """Why the extension cannot be compiled on this machine; None if all needed tools are found."""
    compiler = os.environ.get("CXX", "c++").split()[0]
    if shutil.which(compiler) is None:
        return f"no C++ compiler ({compiler!r} is not on the PATH; set CXX to name another)"
    if shutil.which("ninja") is None and not Path(sys.executable).with_name("ninja").exists():
        return "ninja is not installed (pip install ninja)"
    if kind == "cuda":
        if torch.version.cuda is None:
            return "this PyTorch has no CUDA"
        from torch.utils.cpp_extension import CUDA_HOME

        if CUDA_HOME is None or not (Path(CUDA_HOME) / "bin" / "nvcc").exists():
            return "no CUDA toolkit (nvcc not found; set CUDA_HOME)"
        if not torch.cuda.is_available() and not os.environ.get("TORCH_CUDA_ARCH_LIST"):
            return "no GPU to build for (set TORCH_CUDA_ARCH_LIST to build without one)"
    return None


def build(kind: str, folder: Path | None = None) -> Path:
    """Compile an extension into ``folder`` (default: the cache) unless it is there, and return its path.

    Without a safe cache folder, the default is a new folder for this process, which is removed when the process ends.
    If several processes call this at once, one compiles and the others wait.

    Raises:
        Unavailable: a tool is missing, the compiler fails, or the folder cannot be written to.
    """
    if reason := missing(kind):
        raise Unavailable(reason)
    ahead_of_time = folder is not None
    try:
        folder = folder or _default_folder()
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / library_name(kind)
        with FileLock(folder / f"{target.stem}.lock"):  # the system releases it even if this process is killed
            if not target.is_file() or not ahead_of_time and _foreign(target):
                logger.info("Compiling the %s kernel of ms_deform_attn, once, into %s", kind.upper(), folder)
                _compile(kind, target)
    except OSError as error:
        raise Unavailable(f"{folder or 'the temporary folder'} cannot be written: {error}") from error
    return target


def _default_folder() -> Path:
    """The cache folder, created if needed; without a safe one, a folder for this process."""
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder
    except (Unavailable, OSError) as reason:
        logger.warning(
            "The kernel of ms_deform_attn is compiled for this process only: %s. "
            "To keep it, set TORCH_EXTENSIONS_DIR to your own folder.",
            reason,
        )
        return _private_folder()


def _compile(kind: str, target: Path) -> None:
    from torch.utils.cpp_extension import load

    path = os.environ.get("PATH", "")
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        try:
            # ninja may be installed in Python's folder, which need not be on the PATH.
            os.environ["PATH"] = os.pathsep.join([path, str(Path(sys.executable).parent)])
            load(
                name=f"pading_msda_{kind}",
                sources=[str(p) for p in sorted((SOURCES / kind).iterdir()) if p.suffix in (".cpp", ".cu")],
                build_directory=work,
                is_python_module=False,
                **_flags(kind),
            )
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            raise Unavailable(f"the compiler failed: {error}") from error
        finally:
            os.environ["PATH"] = path
        built = Path(work) / f"pading_msda_{kind}.so"
        built.chmod(0o755)  # regardless of the umask, because group-writable files are not loaded
        os.replace(built, target)


def _flags(kind: str) -> dict:
    openmp = [] if sys.platform == "darwin" else ["-fopenmp"]  # Apple's compiler has no OpenMP
    common = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
    if kind == "cpu":
        return {"extra_cflags": [*common, *openmp, "-Wno-psabi"], "extra_ldflags": openmp}
    return {"extra_cflags": common, "extra_cuda_cflags": ["-O3", "-lineinfo"], "with_cuda": True}
