"""All processes of a job must continue from the same checkpoint; otherwise they would wait for each other forever."""

import hashlib
import socket
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from detectron2.utils import comm

from PADing.checkpoint_files import UNREADABLE
from PADing.engine.distributed import MEETING
from PADing.errors import UserError

_PIECE = 2**20


@dataclass(frozen=True)
class Found:
    """What one process has found to resume from.

    Attributes:
        host: the machine.
        folder: the output folder there.
        name: the checkpoint's name; "" if there is none.
        iteration: its last iteration; None if it cannot be told.
        digest: of its content; "" if there is none.
        problem: the message of the ``UserError`` in place of a checkpoint.
    """

    host: str
    folder: str
    name: str = ""
    iteration: int | None = None
    digest: str = ""
    problem: str = ""

    @property
    def agreement(self) -> tuple:
        """What must be equal in all processes."""
        return self.name, self.iteration, self.digest, bool(self.problem)

    def __str__(self) -> str:
        if self.problem:
            return self.problem
        if not self.name:
            return f"no checkpoint in {self.folder}"
        number = "" if self.iteration is None else f"iteration {self.iteration}, "
        return f"{self.name} ({number}content {self.digest[:8]}) in {self.folder}"


def same_checkpoint(find: Callable[[], str], folder: str, timeout: timedelta = MEETING) -> str:
    """Call ``find`` in every process of the job and compare the files; all processes must call this together.

    Args:
        find: returns the path of the checkpoint to resume from; "" if there is none.
        folder: the output folder, for messages.
        timeout: how long to wait for the other processes.

    Returns:
        what ``find`` has returned.

    Raises:
        UserError: as ``find``; in all processes, if they have found different checkpoints; if one does not answer.
    """
    if comm.get_world_size() == 1:
        return find()
    path, own = "", Found(socket.gethostname(), str(folder))
    try:
        path = find()
        if path:
            own = Found(own.host, own.folder, Path(path).name, _iteration(path), _digest(path))
    except (UserError, OSError) as error:
        own = Found(own.host, own.folder, problem=str(error))
    everywhere = _exchange(own, timeout)
    if all(found.problem for found in everywhere):
        raise UserError(everywhere[0].problem)
    if len({found.agreement for found in everywhere}) > 1:
        raise UserError(_explain(everywhere))
    return path


def _exchange(own: Found, timeout: timedelta) -> list[Found]:
    everywhere: list = [None] * comm.get_world_size()
    try:
        # A group of its own, because the job's has a limit of hours, and NCCL moves what is on GPUs only.
        group = dist.new_group(backend="gloo", timeout=timeout)
        dist.all_gather_object(everywhere, own, group)
        dist.destroy_process_group(group)
    except RuntimeError as error:
        problem = "--resume: the processes could not compare their checkpoints, because one does not answer"
        cure = "Look for its own message (log.txt.rankN), end all of them, and start again."
        reason = str(error).splitlines()[0][:300]
        raise UserError(f"{problem} (waited up to {timeout}: {reason}). {cure}") from error
    return everywhere


def _explain(everywhere: list[Found]) -> str:
    ranks: dict[Found, list[int]] = {}
    for rank, found in enumerate(everywhere):
        ranks.setdefault(found, []).append(rank)
    lines = [f"  - {_numbers(which)} on {found.host}: {found}" for found, which in ranks.items()]
    problem = "--resume: the processes have not found the same checkpoint, so they cannot continue together:"
    cure = "Set OUTPUT_DIR to a folder that all machines share. Or copy the right checkpoint and its last_checkpoint "
    cure += "file to the OUTPUT_DIR of every machine, and move other checkpoints away."
    return "\n".join([problem, *lines, cure])


def _numbers(ranks: list[int]) -> str:
    whole = len(ranks) > 2 and ranks[-1] - ranks[0] == len(ranks) - 1
    shown = f"{ranks[0]} to {ranks[-1]}" if whole else ", ".join(map(str, ranks))
    return f"process{'es' if len(ranks) > 1 else ''} {shown}"


def _iteration(path: str) -> int | None:
    try:
        # Memory-mapped: tensors are not read.
        number = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["iteration"]
    except (*UNREADABLE, OSError):
        return None
    return number if type(number) is int else None


def _digest(path: str) -> str:
    """Equal for copies of a file; from the checksums that the file holds, or else from all its bytes."""
    digest = hashlib.sha256()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = [(member.filename, member.file_size, member.CRC) for member in archive.infolist()]
        if any(checksum for *_, checksum in members):
            digest.update(repr(members).encode())
            return digest.hexdigest()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
