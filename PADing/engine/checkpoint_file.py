"""Files of ``torch.save``: complete or absent when written, and checked before they are loaded.

``torch.load`` does not compare the checksums that such a file holds, so damaged weights would load without a word.
"""

import os
import pickle
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from PADing.engine.file_kind import describe_wrong_file
from PADing.errors import UserError
from PADing.files import replacing

__all__ = ["newest_good", "read_checkpoint", "what_is_wrong", "write_checkpoint"]

PIECE = 2**20
# What a file that cannot be unpickled makes torch.load raise.
UNREADABLE = (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError)


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
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return ""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if not any(member.CRC for member in members):
                return ""  # written with torch.serialization.set_crc32_options(False)
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
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{what} {path} cannot be read: damaged, or not a checkpoint ({reason}).") from error
    if not isinstance(content, dict):
        raise UserError(f"{what} {path} is not a checkpoint: it holds a {type(content).__name__}.")
    return content


def newest_good(files: Iterable[Path]) -> tuple[Path, int] | None:
    """Of several checkpoints the undamaged one with the most iterations, and the last iteration in it."""
    found = []
    for path in files:
        try:
            # Mapped, so that the tensors of all files need no memory.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            found.append((int(content["iteration"]), path))
        except (*UNREADABLE, OSError, TypeError):
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
