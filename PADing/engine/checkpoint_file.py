"""Files of ``torch.save``: complete or absent when written, and checked before they are loaded.

``torch.load`` does not compare the checksums that such a file holds, so damaged weights would load without a word.
"""

import logging
import os
import pickle
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from PADing.engine.checkpoint_content import weights_problem
from PADing.engine.file_kind import describe_wrong_file
from PADing.errors import UserError
from PADing.files import replacing

__all__ = ["newest_good", "note_absent_checksums", "read_checkpoint", "what_is_wrong", "write_checkpoint"]

logger = logging.getLogger(__name__)

PIECE = 2**20
# What a file that cannot be unpickled makes torch.load raise.
UNREADABLE = (
    *(RuntimeError, ValueError, EOFError, pickle.UnpicklingError, OverflowError, MemoryError),
    *(KeyError, IndexError, TypeError, AttributeError, AssertionError),  # from the unpickler
)
ZIP = b"PK\x03\x04"
# In its older versions, weights_only=True can be circumvented by files in the format from before PyTorch 1.6.
SAFE_TORCH = (2, 6)


def write_checkpoint(path: str | os.PathLike, content: dict[str, Any]) -> None:
    """``torch.save`` under a temporary name that becomes ``path`` when everything is on the disk.

    Raises:
        UserError: the disk is full, or the folder cannot be written to. ``path`` is then as it was.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        sink = _Sink(file)
        try:
            torch.save(content, sink)
        except RuntimeError:
            # torch ends with an error of its own about what the disk refused.
            if sink.error is None:
                raise
            raise sink.error from None


def what_is_wrong(path: str | os.PathLike) -> str:
    """Compare the checksums of a file, with one piece of it in memory at a time.

    Returns:
        the end of a sentence "<path> is ...", for example "damaged: ..."; "" if all is well, or if the file has no
        checksums (``.pkl`` files, and what PyTorch wrote before 1.6).
    """
    kind = describe_wrong_file(path)
    if kind:
        return kind
    try:
        members = _members(path)
        if members is None:
            return _danger_of_old_format(path)
        if not any(member.CRC for member in members):
            return ""
        with zipfile.ZipFile(path) as archive:
            for member in members:
                try:
                    with archive.open(member) as content:
                        while content.read(PIECE):
                            pass
                except Exception as error:
                    if isinstance(error, OSError):
                        raise
                    return f"damaged: its part {member.filename} has another content than when it was written"
    except OSError as error:
        return f"unreadable: {error.strerror or error}"
    except Exception:  # a damaged directory makes zipfile raise nearly anything
        return "damaged: it is incomplete, or its table of contents is broken"
    return ""


def note_absent_checksums(path: str | os.PathLike) -> None:
    """Log it if ``what_is_wrong`` cannot notice damage in the weights of a file."""
    if not any(member.CRC for member in _members(path) or ()):
        logger.info("%s has no checksums, so damage in it cannot be noticed.", path)


def _members(path: str | os.PathLike) -> list[zipfile.ZipInfo] | None:
    """What an archive of ``torch.save`` holds; None if the file is none. Without checksums all ``CRC`` are 0."""
    with open(path, "rb") as file:
        if file.read(len(ZIP)) != ZIP:
            return None
    with zipfile.ZipFile(path) as archive:
        return archive.infolist()


def _danger_of_old_format(path: str | os.PathLike) -> str:
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if os.fspath(path).endswith(".pkl") or version >= SAFE_TORCH:  # .pkl files are read by an unpickler of our own
        return ""
    return (
        f"in the format from before PyTorch 1.6, and PyTorch {torch.__version__} could run code that it holds. "
        "Update PyTorch to 2.6 or newer; or, if you trust the source of the file, load it there and save it again"
    )


def read_checkpoint(path: str | os.PathLike, what: str) -> dict[str, Any]:
    """Check a file and load it to the CPU; nothing in it can run code.

    Args:
        what: what the file is for the user; opens every message.

    Raises:
        UserError: no such file, a damaged one, or one of another kind.
    """
    if not os.path.exists(path):
        raise UserError(f"{what} {path} does not exist.")
    problem = what_is_wrong(path)
    if problem:
        raise UserError(f"{what} {path} cannot be read: it is {problem}.")
    note_absent_checksums(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{what} {path} cannot be read: damaged, or not a checkpoint ({reason}).") from error
    if not isinstance(content, dict):
        raise UserError(f"{what} {path} is not a checkpoint: it holds a {type(content).__name__}.")
    problem = weights_problem(content if "model" in content else {"model": {}})
    if problem:
        raise UserError(f"{what} {path} cannot be used: {problem}.")
    return content


def newest_good(files: Iterable[Path]) -> tuple[Path, int] | None:
    """Of several checkpoints the undamaged one with the most iterations, and the last iteration in it."""
    found = []
    for path in files:
        try:
            # Mapped, so that the tensors of all files need no memory.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            found.append((int(content["iteration"]), path))
        except (*UNREADABLE, OSError):
            continue
    for iteration, path in sorted(found, reverse=True):
        if not what_is_wrong(path):
            return path, iteration
    return None


class _Sink:
    """A file to write to that remembers the error of the operating system."""

    def __init__(self, file):
        self.file, self.error = file, None

    def write(self, content) -> int:
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()
