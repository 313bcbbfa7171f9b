"""Shards of a feature folder: safetensors files whose tensors are mapped into memory, and checked before use."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from PADing.errors import UserError, short
from PADing.features.header import Header
from PADing.safetensors_files import safetensors_problem, write_safetensors

__all__ = ["read_shard", "shard_path", "write_shard"]

_TYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "U8": np.uint8}
_AGAIN = "Delete the file, and run the command that wrote the folder again; or copy the file again."
_LARGEST_SIDE = 2**14  # pixels of an image, or cells of a mask


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / f"shard-{number:05d}.safetensors"


def write_shard(folder: Path, header: Header, number: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Write one shard, with the folder's digest and its number; it appears when it is complete.

    Raises:
        UserError: a feature or logit is NaN or infinite, also after the conversion to ``header.dtype``; disk full.
    """
    kept = {}
    for name, array in arrays.items():
        if name in ("features", "logits", "levels"):
            array = _finite(array, header.dtype if name != "levels" else "float32", name)
        kept[name] = np.ascontiguousarray(array)
    kept["folder"] = np.array(list(header.digest()), dtype=np.uint8)
    kept["number"] = np.array([number], dtype=np.int64)
    write_safetensors(shard_path(folder, number), kept)


def _finite(array: np.ndarray, dtype: str, name: str) -> np.ndarray:
    if not np.isfinite(array).all():
        raise UserError(f"The segmenter's {name} hold NaN or infinity. Its weights are unusable: train it again.")
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    if not np.isfinite(converted).all():
        largest = float(np.abs(array).max())
        raise UserError(f"The segmenter's {name} are as large as {largest:.3g}, beyond {dtype}. Add --dtype float32.")
    return converted


def read_shard(folder: Path, header: Header, number: int) -> dict[str, np.ndarray]:
    """The tensors of a shard, mapped into memory, after a check of its checksum and of all values that are indices.

    Raises:
        UserError: missing, incomplete or damaged file, a shard of another folder, or values that cannot be.
    """
    path = shard_path(folder, number)
    if not path.is_file():
        raise UserError(f"{path} is missing: the feature folder is incomplete. Run the command that wrote it again.")
    try:
        problem = safetensors_problem(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    if problem:
        raise UserError(f"{path} is {problem.rstrip('.')}. {_AGAIN}")
    arrays = _mapped(path)
    _check(path, header, number, arrays)
    return arrays


def _mapped(path: Path) -> dict[str, np.ndarray]:
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entries = json.loads(file.read(length))
    found = {}
    for name, entry in entries.items():
        if name == "__metadata__":
            continue
        kind, shape = _TYPES.get(entry["dtype"]), tuple(entry["shape"])
        if kind is None:
            raise UserError(f"{path}: the tensor {short(name)} has the type {entry['dtype']}. {_AGAIN}")
        start = 8 + length + entry["data_offsets"][0]
        empty = math.prod(shape) == 0  # which cannot be mapped
        found[name] = np.zeros(shape, kind) if empty else np.memmap(path, kind, "r", start, shape)
    return found


def _check(path: Path, header: Header, number: int, arrays: Mapping[str, np.ndarray]) -> None:
    count = len(header.records_of(number))
    wanted = _shapes(header, count, arrays)
    if arrays.keys() != wanted.keys():
        raise UserError(f"{path} holds {short(sorted(arrays))}, but must hold {', '.join(sorted(wanted))}. {_AGAIN}")
    for name, (kind, shape) in wanted.items():
        if arrays[name].dtype != kind or arrays[name].shape != shape:
            found = f"{arrays[name].dtype} {arrays[name].shape}"
            raise UserError(f"{path}: the tensor {name} is {found}, but must be {np.dtype(kind)} {shape}. {_AGAIN}")
    if bytes(arrays["folder"]) != header.digest():
        raise UserError(f"{path} belongs to another feature folder. {_AGAIN}")
    if int(arrays["number"][0]) != number:
        raise UserError(f"{path} is shard {int(arrays['number'][0])} under another name. {_AGAIN}")
    rules = [("image", 0, header.images - 1)]
    if header.part == "train":
        rules += [("class", -1, len(header.classes) - 1), ("query", 0, header.queries - 1)]
        _check_places(path, "offset", arrays["offset"], len(arrays["features"]))
        if np.diff(arrays["offset"]).max() > header.queries:
            raise UserError(f"{path}: a record has more rows than the segmenter has queries. {_AGAIN}")
    else:
        rules += [("mask_size", 1, _LARGEST_SIDE), ("size", 1, _LARGEST_SIDE)]
        _check_places(path, "mask_place", arrays["mask_place"], len(arrays["masks"]))
    for name, least, most in rules:
        if arrays[name].size and not least <= arrays[name].min() <= arrays[name].max() <= most:
            low, high = arrays[name].min(), arrays[name].max()
            raise UserError(f"{path}: {name} must be from {least} to {most}, but goes from {low} to {high}. {_AGAIN}")
    for name in ("features", "logits", "levels"):
        if name in arrays and not np.isfinite(arrays[name]).all():
            raise UserError(f"{path}: {name} hold NaN or infinity. Write the features again.")


def _shapes(header: Header, count: int, arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[type, tuple[int, ...]]]:
    """Type and shape of each tensor; what has another length in each shard is taken from ``arrays``."""
    kind = np.float16 if header.dtype == "float16" else np.float32
    found: dict[str, tuple[type, tuple[int, ...]]] = {
        "folder": (np.uint8, (32,)),
        "number": (np.int64, (1,)),
        "image": (np.int64, (count,)),
    }
    if header.part == "train":
        rows = len(arrays["features"]) if arrays.get("features", np.zeros(())).ndim else 0
        found |= {"features": (kind, (rows, header.width)), "class": (np.int32, (rows,)), "query": (np.int32, (rows,))}
        return {**found, "offset": (np.int64, (count + 1,))}
    size = arrays["masks"].size if "masks" in arrays else 0
    found |= {
        "features": (kind, (count, header.queries, header.width)),
        "logits": (kind, (count, header.queries, len(header.classes) + 1)),
        "masks": (np.uint8, (size,)),
        "mask_place": (np.int64, (count + 1,)),
        "mask_size": (np.int32, (count, 2)),
        "size": (np.int32, (count, 3, 2)),
    }
    if header.masks == "bits":
        found["levels"] = (np.float32, (count, header.queries, 2))
    return found


def _check_places(path: Path, name: str, places: np.ndarray, end: int) -> None:
    if places[0] != 0 or places[-1] != end or (np.diff(places) < 0).any():
        raise UserError(f"{path}: {name} does not divide the rows among the records. {_AGAIN}")
