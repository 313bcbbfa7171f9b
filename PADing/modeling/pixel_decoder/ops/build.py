"""Finds and compiles the extensions. Imports nothing of this project, because setup.py runs it alone.

An extension is a shared library with PyTorch operators, without Python. Libraries that are built ahead of time are in
``lib/`` beside this file, those that are built on first use in the user's cache. The file name includes a hash of all
that a build depends on, so a stale library is never loaded; a CUDA library's name also says for which GPUs it is. A
file with the library's SHA-256 is beside it, because opening a truncated library can kill Python. A library that
another user could have placed there is never loaded.
"""

import atexit
import contextlib
import hashlib
import logging
import os
import platform
import re
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
ARCHITECTURES = "TORCH_CUDA_ARCH_LIST"
# A compute capability; "a" and "f" bind the code to it or its family; "+PTX" adds code that newer GPUs can translate.
ARCHITECTURE = re.compile(r"(\d+)\.(\d)([af]?)(\+PTX)?")


class Unavailable(RuntimeError):
    """The extension is not available on this machine; the message tells the user why."""


def libraries(kind: str) -> list[Path]:
    """The compiled extensions that may be loaded and fit this machine's GPUs, in the order to try them."""
    ahead = _fitting(kind, HERE / "lib")  # trusted as this code: both are in the same folder
    with contextlib.suppress(Unavailable):
        return ahead + [path for path in _fitting(kind, cache_folder()) if not _foreign(path)]
    return ahead


def _fitting(kind: str, folder: Path) -> list[Path]:
    found = sorted(path for path in folder.glob(f"{_stem(kind)}*.so") if path.is_file())
    return [path for path in found if kind == "cpu" or _fits(path.stem.removeprefix(f"{_stem(kind)}-"))]


def library_name(kind: str) -> str:
    """The file name of an extension that is built now.

    Raises:
        Unavailable: TORCH_CUDA_ARCH_LIST cannot be understood.
    """
    if kind == "cpu":
        return f"{_stem(kind)}.so"
    return f"{_stem(kind)}-{'_'.join(f'sm{name}' for name in _architectures())}.so"


def _stem(kind: str) -> str:
    """What the names of all builds of these sources start with: a hash of everything but the GPUs."""
    digest = hashlib.sha256()
    for path in sorted((SOURCES / kind).iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    digest.update(repr((_flags(kind), torch.version.cuda)).encode())
    return f"msda_{kind}-torch{torch.__version__}-{sys.platform}-{platform.machine()}-{digest.hexdigest()[:12]}"


def _architectures() -> list[str]:
    """The GPU architectures to build for, as in ``9.0+PTX``: those of TORCH_CUDA_ARCH_LIST, else of this machine."""
    if named := os.environ.get(ARCHITECTURES):
        names = sorted(set(re.split(r"[\s;,]+", named.strip(" ;,"))))
        if wrong := [name for name in names if not ARCHITECTURE.fullmatch(name)]:
            raise Unavailable(f"{ARCHITECTURES} has {wrong[0]!r}; give compute capabilities, such as 8.0;9.0+PTX")
        return names
    newest = max((_numbers(name.removeprefix("sm_")) for name in torch.cuda.get_arch_list()), default=(99, 9))
    # A GPU that is newer than this PyTorch gets PTX of the newest architecture that PyTorch knows.
    return [f"{a}.{b}" if (a, b) <= newest else "{}.{}+PTX".format(*newest) for a, b in _capabilities()]


def _numbers(name: str) -> tuple[int, int]:
    digits = re.sub(r"\D", "", name)  # "compute_90a" -> "90"
    return int(digits[:-1] or 0), int(digits[-1:] or 0)


def _capabilities() -> list[tuple[int, int]]:
    """The compute capabilities of this machine's GPUs."""
    return sorted({torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())})


def _fits(tag: str) -> bool:
    """Whether a CUDA library runs on all GPUs here; ``tag``: its architectures, as in ``sm8.0_sm9.0+PTX``."""
    built = [match for name in tag.split("_") if (match := ARCHITECTURE.fullmatch(name.removeprefix("sm")))]
    return bool(built) and all(any(_runs(arch, gpu) for arch in built) for gpu in _capabilities())


def _runs(arch: re.Match, gpu: tuple[int, int]) -> bool:
    """Machine code runs on its own major version from its minor version on, PTX on everything that is newer."""
    major, minor, bound, ptx = int(arch[1]), int(arch[2]), arch[3], arch[4]
    if bound == "a":
        return gpu == (major, minor)
    return gpu[0] == major and gpu[1] >= minor or bool(ptx) and not bound and gpu >= (major, minor)


def damage(path: Path) -> str | None:
    """What is wrong with a library's file; None if it is the one that was compiled."""
    try:
        content, wanted = path.read_bytes(), _checksum(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        return f"cannot be checked: {error}"
    if not content:
        return "is empty"
    return None if hashlib.sha256(content).hexdigest() == wanted else f"is damaged: it does not fit {_checksum(path)}"


def discard(path: Path) -> None:
    """Let the next build replace a library that cannot be opened."""
    with contextlib.suppress(OSError):
        _checksum(path).unlink()


def _checksum(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


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
        if not torch.cuda.is_available() and not os.environ.get(ARCHITECTURES):
            return f"no GPU to build for (set {ARCHITECTURES} to build without one)"
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
            if not target.is_file() or damage(target) or not ahead_of_time and _foreign(target):
                text = "Compiling the %s kernel of ms_deform_attn (once, about a minute) into %s"
                logger.info(text, kind.upper(), folder)
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

    # ninja may be installed in Python's folder, which need not be on the PATH.
    environment = {"PATH": os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])}
    if kind == "cuda":
        environment[ARCHITECTURES] = ";".join(_architectures())
    with tempfile.TemporaryDirectory(dir=target.parent) as work, _environment(environment):
        try:
            load(
                name=f"pading_msda_{kind}",
                sources=[str(p) for p in sorted((SOURCES / kind).iterdir()) if p.suffix in (".cpp", ".cu")],
                build_directory=work,
                is_python_module=False,
                **_flags(kind),
            )
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            raise Unavailable(f"the compiler failed: {error}") from error
        built = Path(work) / f"pading_msda_{kind}.so"
        built.chmod(0o755)  # regardless of the umask, because group-writable files are not loaded
        _place(built, target)


@contextlib.contextmanager
def _environment(values: dict[str, str]):
    """Set environment variables for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _place(built: Path, target: Path) -> None:
    """Move a new library to its place. If the process is killed in between, the files do not fit: they are replaced."""
    checksum = _checksum(built)
    checksum.write_text(hashlib.sha256(built.read_bytes()).hexdigest() + "\n", encoding="ascii")
    os.replace(checksum, _checksum(target))
    os.replace(built, target)


def _flags(kind: str) -> dict:
    openmp = [] if sys.platform == "darwin" else ["-fopenmp"]  # Apple's compiler has no OpenMP
    common = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
    if kind == "cpu":
        return {"extra_cflags": [*common, *openmp, "-Wno-psabi"], "extra_ldflags": openmp}
    return {"extra_cflags": common, "extra_cuda_cflags": ["-O3", "-lineinfo"], "with_cuda": True}
