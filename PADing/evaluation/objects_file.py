"""Writes a list of Python objects as ``torch.save`` would, but item by item, so that the list is never in memory.

``torch.load`` reads the file, also with ``weights_only=True``. The items are numbers, texts, lists and dicts.
"""

import os
import pickle
import zipfile
from collections.abc import Iterable
from typing import Any

from PADing.files import replacing

_PROTOCOL = 2  # that of torch.save
_FOLDER = "objects"


def item_bytes(item: Any) -> bytes:
    """An item, pickled, without the marks of a pickle's beginning and end; such bytes can be joined."""
    return pickle.dumps(item, _PROTOCOL)[len(pickle.PROTO) + 1 : -len(pickle.STOP)]


def write_objects(path: str | os.PathLike, parts: Iterable[bytes]) -> None:
    """Write the list of the items of all ``parts``, each of which is ``item_bytes`` of one or several items, joined."""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open(_entry("data.pkl"), "w", force_zip64=True) as file:
            file.write(pickle.PROTO + bytes([_PROTOCOL]) + pickle.EMPTY_LIST + pickle.MARK)
            for part in parts:
                file.write(part)
            file.write(pickle.APPENDS + pickle.STOP)
        archive.writestr(_entry("byteorder"), "little")
        archive.writestr(_entry("version"), "3\n")


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(f"{_FOLDER}/{name}")  # of no date, so that equal results are equal files
