"""What a shared model's folder holds, and whether it is complete."""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from PADing.errors import UserError, short
from PADing.files import read_json, write_json

MARKER = "model.json"  # says that the folder is a shared model, and has checksums of its small files
WEIGHTS = "model.safetensors"
CONFIG = "config.yaml"
CLASSES = "split.yaml"
EMBEDDINGS = "class_embeddings.npz"
METRICS = "results.json"
CARD = "README.md"
# Files with a checksum; the last two may be absent. The weights have their own, and the card is for the owner to edit.
CHECKED = (CONFIG, CLASSES, EMBEDDINGS, METRICS)
# Top-level config keys of the owner's accounts, which are neither shared nor taken from others.
PERSONAL = ("TRACKING", "TRACKING_RUN")
FORMAT = 1
HUB = "hf://"


def is_shared(folder: str | os.PathLike) -> bool:
    """Whether a folder was made by ``tools/share_model.py``."""
    return Path(folder, MARKER).is_file()


def write_marker(folder: Path) -> None:
    """Write ``MARKER``, the last file of a new folder."""
    present = [name for name in CHECKED if (folder / name).is_file()]
    content = {"format": FORMAT, "files": {name: _sha256(folder / name) for name in present}}
    write_json(folder / MARKER, content, indent=2)


def listed_files(marker: str | os.PathLike) -> dict[str, str]:
    """Name and SHA-256 of the files that a marker lists.

    Raises:
        UserError: not a marker, of a newer version, or with files that no shared model has.
    """
    content = read_json(marker, "Shared model")
    version, files = content.get("format"), content.get("files")
    if version != FORMAT:
        raise UserError(f"Shared model: {marker} has the format {short(version)}; this version reads format {FORMAT}.")
    digests = list(files.values()) if isinstance(files, dict) else [None]
    if not set(files or ()) <= set(CHECKED) or not all(re.fullmatch("[0-9a-f]{64}", str(x)) for x in digests):
        raise UserError(f"Shared model: {marker} does not list the files of a shared model. Get it again.")
    absent = {CONFIG, CLASSES} - files.keys()
    if absent:
        raise UserError(f"Shared model: {marker} does not list {', '.join(sorted(absent))}. Get it again.")
    return files


def check_folder(folder: Path) -> set[str]:
    """Check a shared model's folder but for its weights; returns the names of its checked files.

    Raises:
        UserError: no shared model; a file is missing or has changed.
    """
    if not folder.is_dir() or not is_shared(folder):
        raise UserError(f"{folder} {_why_not(folder)}. tools/share_model.py makes shared models.")
    files = listed_files(folder / MARKER)
    absent = [name for name in files_of(files) if not (folder / name).is_file()]
    if absent:
        raise UserError(f"Shared model {folder} is incomplete: {', '.join(absent)} missing. Get it again.")
    present = [name for name in files if (folder / name).is_file()]  # a download leaves out the metrics
    changed = [name for name in present if _sha256(folder / name) != files[name]]
    if changed:
        cure = "Get it again. To change values of the config, give them as overrides."
        raise UserError(f"Shared model {folder}: {', '.join(changed)} changed since it was made. {cure}")
    return set(files)


def _why_not(folder: Path) -> str:
    if not folder.exists():
        return "does not exist"
    if not folder.is_dir():
        return "is a file, not the folder of a shared model"
    training = any((folder / name).exists() for name in ("last_checkpoint", "metrics.json"))
    return f"is {'the folder of a training' if training else 'no shared model'}: it has no {MARKER}"


def files_of(names: Iterable[str]) -> tuple[str, ...]:
    """All that is needed to load a model, given the names that its marker lists."""
    return (MARKER, *(name for name in names if name != METRICS), WEIGHTS)


def _sha256(path: Path) -> str:
    try:
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while piece := file.read(2**20):
                digest.update(piece)
        return digest.hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
