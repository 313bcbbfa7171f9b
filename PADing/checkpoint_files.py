"""Checkpoint files: a file appears only when it is complete, and is checked before it is loaded.

``torch.load`` does not compare the checksums in a file, so it would load damaged weights without an error. A
file whose name ends in ``.safetensors`` has that format (``PADing.safetensors_files``), which holds weights only.
"""

import logging
import os
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor

from PADing.errors import UserError, short
from PADing.files import replacing
from PADing.safetensors_files import (
    SUFFIX,
    has_checksum,
    is_safetensors,
    read_safetensors,
    safetensors_problem,
    write_safetensors,
)

logger = logging.getLogger(__name__)

# The errors that torch.load raises for an unreadable file.
UNREADABLE = (
    *(RuntimeError, ValueError, EOFError, pickle.UnpicklingError, OverflowError, MemoryError),
    *(KeyError, IndexError, TypeError, AttributeError, AssertionError),  # from the unpickler
)
WEIGHT_FILES = ("*.pth", "*.pkl", f"*{SUFFIX}")
_PIECE = 2**20
# Before this version, files in the format from before PyTorch 1.6 can run code in spite of weights_only=True.
_SAFE_TORCH = (2, 6)
# Bytes that show a web page's first tags or a whole Git LFS pointer.
_HEAD = 1024
# First bytes of a file -> what it is.
_SIGNATURES = {
    b"\x89PNG\r\n": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"%PDF-": "a PDF document",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"BZh": "a bzip2 archive; unpack it first",
    b"\xfd7zXZ\x00": "an xz archive; unpack it first",
    b"7z\xbc\xaf'\x1c": "a 7z archive; unpack it first",
    b"Rar!\x1a\x07": "a RAR archive; unpack it first",
    b"\x7fELF": "a program or library",
    b"\x89HDF\r\n": "an HDF5 file of another framework",
    b"\x93NUMPY": "a single NumPy array",
}


def write_checkpoint(path: str | os.PathLike, content: Any) -> None:
    """``torch.save`` to a file that appears when it is complete; UserError: disk full, or no permission to write.

    A ``.safetensors`` file gets the weights (``content["model"]``) and the iteration alone.
    """
    if is_safetensors(path):
        write_safetensors(path, content["model"], content.get("iteration"))
        return
    with replacing(path) as temporary, open(temporary, "wb") as file:
        sink = _Sink(file)
        try:
            torch.save(content, cast(IO[bytes], sink))
        except RuntimeError:
            # torch replaces the error of the operating system by its own.
            if sink.error is None:
                raise
            raise sink.error from None


class _Sink:
    """A file to write to that keeps the error of the operating system."""

    def __init__(self, file: IO[bytes]):
        self.file, self.flush = file, file.flush
        self.error: OSError | None = None

    def write(self, content) -> int:
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = error
            raise


def read_checkpoint(path: str | os.PathLike, what: str) -> dict[str, Any]:
    """Check a checkpoint and load it to the CPU, without running code in it.

    Args:
        path: the file.
        what: the kind of file, with which messages begin.

    Raises:
        UserError: the file does not exist, is damaged, or is not a checkpoint.
    """
    name = f"{what} {path}"
    if not os.path.exists(path):
        raise UserError(f"{name} does not exist.")
    check_file(path, name)
    try:
        if is_safetensors(path):
            content = read_safetensors(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{name} cannot be read: damaged, or not a checkpoint ({reason}).") from error
    if not isinstance(content, dict):
        raise UserError(f"{name} is not a checkpoint: it holds a {type(content).__name__}.")
    if problem := weights_problem(content if "model" in content else {"model": {}}):
        raise UserError(f"{name} cannot be used: {problem}.")
    return content


def newest_good(files: Iterable[Path]) -> tuple[Path, int] | None:
    """The undamaged checkpoint with the most iterations, and its last iteration; None if all are damaged."""
    found = []
    for path in files:
        try:
            # Memory-mapped: tensors are not read.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            found.append((int(content["iteration"]), path))
        except (*UNREADABLE, OSError):
            continue
    return next(((path, iteration) for iteration, path in sorted(found, reverse=True) if not file_problem(path)), None)


def check_file(path: str | os.PathLike, name: str) -> None:
    """UserError that begins with ``name`` if there is a ``file_problem``; logs if the file has no checksums."""
    if problem := file_problem(path):
        raise UserError(f"{name} cannot be read: it is {problem}.")
    if is_safetensors(path):
        checked = not os.path.exists(path) or has_checksum(path)
    else:
        checked = any(member.CRC for member in _members(path) or ())
    if not checked:
        logger.info("%s has no checksums, so damage in it cannot be detected.", path)


def file_problem(path: str | os.PathLike) -> str:
    """Compare the checksums of a checkpoint; returns the end of a sentence "<path> is ...", such as "damaged: ...".

    "" if the file is intact, has no checksums (``.pkl`` files, PyTorch before 1.6), or does not exist.
    """
    kind = _wrong_kind(Path(path))
    if kind or not os.path.exists(path):
        return kind
    try:
        if is_safetensors(path):
            return safetensors_problem(path)
        members = _members(path)
        if members is None:
            return _danger_of_old_format(path)
        if not any(member.CRC for member in members):
            return ""
        with zipfile.ZipFile(path) as archive:
            for member in members:
                try:
                    with archive.open(member) as content:
                        while content.read(_PIECE):
                            pass
                except OSError:
                    raise
                except Exception:
                    return f"damaged: its part {member.filename} has changed since it was written"
    except OSError as error:
        return f"unreadable: {error.strerror or error}"
    except Exception:  # zipfile raises many types for a damaged directory
        return "damaged: it is incomplete, or its table of contents is broken"
    return ""


def _members(path: str | os.PathLike) -> list[zipfile.ZipInfo] | None:
    """The members of an archive by ``torch.save``; None for another file. Without checksums all ``CRC`` are 0."""
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return None
    with zipfile.ZipFile(path) as archive:
        return archive.infolist()


def _danger_of_old_format(path: str | os.PathLike) -> str:
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if os.fspath(path).endswith(".pkl") or version >= _SAFE_TORCH:  # .pkl files are read by an unpickler of our own
        return ""
    fix = "Update PyTorch to 2.6 or newer, or load and save the file there if you trust its source"
    return f"in the format from before PyTorch 1.6, and PyTorch {torch.__version__} could run code in it. {fix}"


def _wrong_kind(path: Path) -> str:
    """What ``path`` is, if its first bytes show that it is not a checkpoint; else ""."""
    if path.is_dir():
        inside = sorted(file.name for pattern in WEIGHT_FILES for file in path.glob(pattern))
        return "a folder" + (f". Name a file in it: {', '.join(inside[:5])}" if inside else "")
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return ""
    if not head:
        return "an empty file. Its download or copy has failed; get it again"
    if head[4:9] == b"\0\0\0\0{" and not is_safetensors(path):
        return f"a safetensors file. Rename it so that its name ends in {SUFFIX}"
    signed = (kind for signature, kind in _SIGNATURES.items() if head.startswith(signature))
    return next(signed, None) or _kind_of_text(head)


def _kind_of_text(head: bytes) -> str:
    # Pickles of protocol 0 are text, too, but do not begin with "<" or "{".
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself. Run `git lfs pull` in its repository"
    if start.startswith((b"<!doctype html", b"<html")) or b"<html" in start and start.startswith(b"<"):
        return "a web page. Open its address in a browser and download the file itself"
    if start.startswith((b"<?xml", b"<!doctype", b"<error")):
        return "an XML document, perhaps the error message of a download server. Get the file again"
    if start.startswith((b"{", b"[")):
        return "a JSON or text file"
    # The head may end in the middle of a character.
    text = head.decode("utf-8", "replace").removesuffix("\ufffd")
    printable = all(letter.isprintable() and letter != "\ufffd" or letter in "\r\n\t\f" for letter in text)
    return "a text file" if printable and (b":" in head.split(b"\n", 1)[0] or head.startswith(b"#")) else ""


def weights_problem(content: Any) -> str:
    """The end of a sentence "<file> cannot be used: ..."; "" if ``content`` holds a dict of weights under ``model``."""
    weights = content.get("model") if isinstance(content, dict) else content
    if not isinstance(weights, Mapping):
        return f"it holds a {type(weights).__name__} in place of named weights"
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, Tensor | np.ndarray):
            return f"its weight {short(name)} is a {type(value).__name__}, not a named tensor"
        if isinstance(value, Tensor) and (value.is_meta or value.is_quantized or value.layout != torch.strided):
            return f"its weight {name} is quantized, sparse, or without values"
        tensor = torch.as_tensor(value)
        # An expanded tensor in a crafted file may have more elements than fit into memory.
        held = tensor.is_floating_point() and tensor.nbytes <= tensor.untyped_storage().nbytes()
        if held and tensor.isnan().any():
            return f"its weight {name} holds NaN, so the training that wrote it had failed. Use an earlier checkpoint"
    return ""
