"""Weights in the format safetensors, which holds named tensors and nothing that could run.

A file that this program writes has a checksum of its weights. The header of any file is checked before the library
reads it: the length of the file, the place of each weight, types, sizes.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from PADing.errors import UserError, short
from PADing.files import replacing

SUFFIX = ".safetensors"
# The library refuses longer headers; that of a model of a thousand weights has about 100 kB.
_MAX_HEADER = 100_000_000
_PIECE = 2**20
_CHECKSUM, _ITERATION = "sha256 of weights", "iteration"  # entries of the header's metadata
_NAMES: dict[torch.dtype, str] = {
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.bool: "BOOL"},
    **{torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8"},
}
_BYTES = {name: dtype.itemsize for dtype, name in _NAMES.items()}
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


class _Problem(ValueError):
    """The end of a sentence "<file> is ..."."""


def is_safetensors(path: str | os.PathLike) -> bool:
    """Whether a file of this name is read and written as safetensors."""
    return os.fspath(path).endswith(SUFFIX)


def write_safetensors(
    path: str | os.PathLike, weights: Mapping[str, Tensor | np.ndarray], iteration: int | None = None
) -> None:
    """Write named weights with a checksum; the file appears when it is complete.

    Args:
        path: the file.
        weights: a state dict. Values and types are kept; tensors that share memory are stored once each.
        iteration: of the training, for the reader.

    Raises:
        UserError: a weight's type does not exist in the format; disk full, or no permission to write.
    """
    tensors: dict[str, Tensor] = {}
    places = set()
    for name, value in weights.items():
        tensor = torch.as_tensor(value).detach().cpu().contiguous()
        if tensor.dtype not in _NAMES:
            raise UserError(f"{path} cannot be written: weight {name} is {tensor.dtype}. Write a .pth file.")
        if tensor.untyped_storage().data_ptr() in places:
            tensor = tensor.clone()
        places.add(tensor.untyped_storage().data_ptr())
        tensors[name] = tensor
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(_label(name, _NAMES[tensor.dtype], tensor.shape))
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    metadata = {"format": "pt", _CHECKSUM: digest.hexdigest()}
    metadata |= {} if iteration is None else {_ITERATION: str(int(iteration))}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            if number := _OS_ERROR.search(str(error)):  # the library replaces the error of the operating system
                raise OSError(int(number[1]), os.strerror(int(number[1])), str(temporary)) from None
            raise


def read_safetensors(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a checked file on the CPU: ``model``, a state dict, and ``iteration`` if the file has it.

    Raises:
        ValueError: the file cannot be read.
    """
    try:
        metadata = _header(Path(path)).get("__metadata__", {})
        content: dict[str, Any] = {"model": load_file(path, device="cpu")}
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    if metadata.get(_ITERATION, "").isdecimal() and len(metadata[_ITERATION]) < 20:
        content["iteration"] = int(metadata[_ITERATION])
    return content


def has_checksum(path: str | os.PathLike) -> bool:
    """Whether damage in the weights of a sound file can be detected."""
    return _CHECKSUM in _header(Path(path)).get("__metadata__", {})


def safetensors_problem(path: str | os.PathLike) -> str:
    """Check header, length and checksum of a file; returns the end of a sentence "<path> is ...", "" if intact.

    OSError: the file cannot be read.
    """
    path = Path(path)
    try:
        header = _header(path)
        wanted = header.pop("__metadata__", {}).get(_CHECKSUM)
        if wanted is not None and wanted != _checksum(path, header):
            return "damaged: its weights have changed since it was written"
    except _Problem as problem:
        return str(problem)
    return ""


def _header(path: Path) -> dict[str, Any]:
    """The checked header; ``_Problem`` if the file is not what its header says."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        first = file.read(8)
        if first[:4] == b"PK\x03\x04":
            raise _Problem("a checkpoint of PyTorch, not a safetensors file. Rename it so that its name ends in .pth")
        length, brace = int.from_bytes(first, "little"), file.read(1)
        if len(first) < 8 or not brace:
            raise _Problem("damaged: it is incomplete")
        if brace != b"{" or length < 2:
            raise _Problem("not a safetensors file: it does not begin with a header")
        if length > _MAX_HEADER:
            raise _Problem(f"damaged: its header would have {length} bytes; {_MAX_HEADER} are allowed")
        if length > size - 8:
            raise _Problem("damaged: it is incomplete")
        text = brace + file.read(length - 1)
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise _Problem(f"damaged: its header is not valid ({short(str(error))})") from error
    if not isinstance(header, dict):
        raise _Problem("damaged: its header is not a table of weights")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _Problem("damaged: its metadata are not texts")
    _check_places({name: entry for name, entry in header.items() if name != "__metadata__"}, size - 8 - length)
    return header


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _check_places(entries: dict[str, Any], size: int) -> None:
    """``_Problem`` unless the weights fill ``size`` bytes without gap or overlap, each as large as its shape says."""
    places = []
    for name, entry in entries.items():
        kind, shape, place = _described(entry)
        if not isinstance(kind, str) or len(place) != 2:
            raise _Problem(f"damaged: its header does not describe the weight {short(name)}")
        if kind not in _BYTES:
            raise _Problem(f"not usable: its weight {short(name)} has the type {short(kind)}, which no model has")
        if place[1] - place[0] != math.prod(shape) * _BYTES[kind]:
            raise _Problem(f"damaged: the size of its weight {short(name)} does not fit its shape")
        places.append(tuple(place))
    end = 0
    for start, stop in sorted(places):
        if start != end:
            raise _Problem("damaged: its weights overlap, or there are gaps between them")
        end = stop
    if end > size:
        raise _Problem("damaged: it is incomplete")
    if end < size:
        raise _Problem("damaged: something follows its last weight")


def _described(entry: Any) -> tuple[Any, list[int], list[int]]:
    """Type, shape and place that an entry of the header gives a weight; no place for a wrong entry."""
    if not isinstance(entry, dict):
        return None, [], []
    shape, place = entry.get("shape"), entry.get("data_offsets")
    for values in (shape, place):
        if not isinstance(values, list) or not all(type(value) is int and 0 <= value < 2**63 for value in values):
            return None, [], []
    return entry.get("dtype"), cast(list[int], shape), cast(list[int], place)


def _checksum(path: Path, header: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        for name in sorted(header):
            entry = header[name]
            digest.update(_label(name, entry["dtype"], entry["shape"]))
            first, last = entry["data_offsets"]
            file.seek(start + first)
            for place in range(first, last, _PIECE):
                digest.update(file.read(min(_PIECE, last - place)))
    return digest.hexdigest()


def _label(name: str, kind: str, shape) -> bytes:
    return json.dumps([name, kind, list(shape)]).encode()
