"""Finding and compiling the extensions. Imports nothing of this project, because setup.py runs it alone.

An extension is one shared library with PyTorch operators and no Python in it. Libraries built ahead of time lie in
``lib/`` beside this file, those built on first use in the user's cache; their names carry everything they depend on, so
that another PyTorch version, another machine type or changed sources never meet a stale library. A library that another
user could have put in its place is not loaded.
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
    """This extension cannot be had here; the message says why, in words for the person at the keyboard."""


def library(kind: str) -> Path | None:
    """The compiled extension, if there is one that may be loaded."""
    ahead = HERE / "lib" / library_name(kind)  # part of this code: who may write there may write these lines too
    if ahead.is_file():
        return ahead
    with contextlib.suppress(Unavailable):
        cached = cache_folder() / library_name(kind)
        if cached.is_file() and not _foreign(cached):
            return cached
    return None


def library_name(kind: str) -> str:
    """File name that tells apart everything a build depends on."""
    digest = hashlib.sha256()
    for path in sorted((SOURCES / kind).iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    digest.update(repr((_flags(kind), torch.version.cuda, os.environ.get("TORCH_CUDA_ARCH_LIST"))).encode())
    return f"msda_{kind}-torch{torch.__version__}-{sys.platform}-{platform.machine()}-{digest.hexdigest()[:12]}.so"


def cache_folder() -> Path:
    """Where extensions built on first use are kept: under $TORCH_EXTENSIONS_DIR, $XDG_CACHE_HOME or ~/.cache.

    Raises Unavailable if that folder cannot be written, or if another user could put a library there.
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
    """How a user other than this one and root could have put something at ``path``; None if in no way.

    ``path`` and the folders above it must belong to one of the two; only the owner may write to ``path`` and the cache
    folder, not everybody to folders above, except for sticky ones such as /tmp, where files of others are safe.
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
    """Why this extension cannot be compiled here; None if nothing is known to be missing."""
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
    """Compile an extension into ``folder`` (default: the cache) unless it is there, and return it.

    Where there is no cache to trust, the default is a new folder for this process, which is removed when it ends.
    Any number of processes may ask at once: one compiles, the others wait for it. Raises Unavailable if a tool is
    missing or the compiler fails.
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
    """The cache, made if need be; where there is none, a folder for this process."""
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder
    except (Unavailable, OSError) as reason:
        logger.warning(
            "The kernel of ms_deform_attn is compiled for this process only: %s. "
            "To keep it, let TORCH_EXTENSIONS_DIR name a folder of your own.",
            reason,
        )
        return _private_folder()


def _compile(kind: str, target: Path) -> None:
    from torch.utils.cpp_extension import load

    path = os.environ.get("PATH", "")
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        try:
            # ninja may be installed beside Python without being on the PATH.
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
        built.chmod(0o755)  # whatever the umask: a file that a group may write is not loaded
        os.replace(built, target)


def _flags(kind: str) -> dict:
    openmp = [] if sys.platform == "darwin" else ["-fopenmp"]  # Apple's compiler has none
    common = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
    if kind == "cpu":
        return {"extra_cflags": [*common, *openmp, "-Wno-psabi"], "extra_ldflags": openmp}
    return {"extra_cflags": common, "extra_cuda_cflags": ["-O3", "-lineinfo"], "with_cuda": True}
