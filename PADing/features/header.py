"""``features.json``: what a feature folder holds, of which model, data set and classes."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from PADing.errors import UserError, short
from PADing.files import read_json, write_json

__all__ = ["DTYPES", "HEADER", "MASKS", "PARTS", "Header", "read_header", "write_header"]

HEADER = "features.json"
FORMAT, VERSION = "PADing features", 1
PARTS = ("train", "val")
DTYPES = ("float16", "float32")
MASKS = ("float32", "float16", "bits")
# Larger files or numbers are no header of ours; they must not fill the memory.
_MOST_BYTES, _MOST, _MOST_SHARDS = 2**26, 2**40, 2**20


@dataclass(frozen=True)
class Header:
    """All but the tensors.

    Attributes:
        part: "train": queries with their classes; "val": all that an evaluation needs.
        data_set: registered name.
        data_sha256: of image ids, sizes and annotated classes of the data set, see ``data_hash``.
        images: number of images of the data set, the lines of ``images.json``.
        passes: how often each image occurs; in training each time with another augmentation.
        records_per_shard: the number of records of each shard but the last.
        seed: of the data order and the augmentation of ``part`` "train".
        classes: names of the model's classes, by output.
        unseen: those without an annotated training image.
        queries, width: of the segmenter.
        dtype: of features and logits.
        unmatched: queries without a class that are stored for an image of "train"; 0: all.
        masks: encoding of the mask logits of "val"; "" for "train".
        weights_sha256: of backbone and head, see ``PADing.features.model.weights_hash``.
        architecture: meta-architecture of the config.
        config_sha256: of ``config``.
        config: the sections MODEL and INPUT as YAML, for readers; nothing is built from it.
    """

    part: str
    data_set: str
    data_sha256: str
    images: int
    passes: int
    records_per_shard: int
    seed: int
    classes: tuple[str, ...]
    unseen: tuple[str, ...]
    queries: int
    width: int
    dtype: str
    unmatched: int
    masks: str
    weights_sha256: str
    architecture: str
    config_sha256: str
    config: str

    @property
    def records(self) -> int:
        """Number of records: images times passes."""
        return self.images * self.passes

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.records // self.records_per_shard)

    def records_of(self, shard: int) -> range:
        """The numbers of a shard's records."""
        first = shard * self.records_per_shard
        return range(first, min(first + self.records_per_shard, self.records))

    def digest(self) -> bytes:
        """SHA-256 of all fields; each shard holds it, so that shards of another folder are noticed."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).digest()

    def differences(self, other: "Header") -> list[str]:
        """Names of the fields that differ."""
        return [field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name)]


def write_header(folder: Path, header: Header) -> None:
    """Write ``features.json``."""
    write_json(folder / HEADER, {"format": FORMAT, "version": VERSION, **asdict(header)}, indent=1)


def read_header(folder: Path) -> Header:
    """Read and check ``features.json``.

    Raises:
        UserError: no feature folder, another version, a damaged file, or values that cannot be.
    """
    path = folder / HEADER
    if not path.is_file():
        raise UserError(f"{folder} is not a feature folder: it has no {HEADER}. Make one with: pading features write.")
    if path.stat().st_size > _MOST_BYTES:
        raise UserError(f"{path} is too large for a description of features. Copy the folder again.")
    content = read_json(path, "Feature folder")
    if content.pop("format", None) != FORMAT:
        raise UserError(f"{path} does not describe a feature folder: `format` must be {FORMAT!r}.")
    if (version := content.pop("version", None)) != VERSION:
        cure = "Install the program that wrote it, or write the features again."
        raise UserError(f"{path} has version {short(version)} of the format; this program reads {VERSION}. {cure}")
    wanted = {field.name for field in fields(Header)}
    if odd := sorted(map(str, content.keys() ^ wanted)):
        raise UserError(f"{path} lacks or has too many fields: {short(odd)}. Copy the folder again.")
    for name, (is_right, what) in _RULES.items():
        if not is_right(content[name]):
            raise UserError(f"{path}: `{name}` must be {what}, but is {short(content[name])}. Copy the folder again.")
    lists = {name: tuple(content[name]) for name in ("classes", "unseen")}
    header = Header(**{**content, **lists})
    _check_together(header, path)
    return header


def _check_together(header: Header, path: Path) -> None:
    if header.shards > _MOST_SHARDS:
        many = f"{header.shards:,} shards by `images`, `passes` and `records_per_shard`, more than {_MOST_SHARDS:,}"
        raise UserError(f"{path} describes {many}. Copy the folder again.")
    if strange := sorted(set(header.unseen) - set(header.classes)):
        raise UserError(f"{path}: {short(strange)} are unseen, but no classes. Copy the folder again.")
    if (header.part == "val") != bool(header.masks) or (header.part == "val" and header.passes != 1):
        raise UserError(f"{path}: `masks` and `passes` do not fit the part {header.part!r}. Copy the folder again.")


_Rule = tuple[Callable[[Any], bool], str]


def _whole(least: int, most: int = _MOST) -> _Rule:
    return (lambda value: type(value) is int and least <= value <= most), f"a whole number from {least} to {most}"


def _one_of(*names: str) -> _Rule:
    return (lambda value: isinstance(value, str) and value in names), f"one of {', '.join(map(repr, names))}"


def _is_names(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and all(isinstance(name, str) and name for name in value)
        and len(set(value)) == len(value) < 2**20
    )


_TEXT: _Rule = (lambda value: isinstance(value, str)), "text"
_SHA: _Rule = (lambda v: isinstance(v, str) and len(v) == 64 and not v.strip("0123456789abcdef")), "a SHA-256"
_NAMES: _Rule = _is_names, "a list of different names"
_RULES: Mapping[str, _Rule] = {
    "part": _one_of(*PARTS),
    "data_set": _TEXT,
    "data_sha256": _SHA,
    "images": _whole(1, 2**31),
    "passes": _whole(1, 1000),
    "records_per_shard": _whole(1, 2**20),
    "seed": _whole(0, 2**63),
    "classes": ((lambda value: _is_names(value) and len(value) > 0), "a list of different names"),
    "unseen": _NAMES,
    "queries": _whole(1, 10_000),
    "width": _whole(1, 65_536),
    "dtype": _one_of(*DTYPES),
    "unmatched": _whole(0, 10_000),
    "masks": _one_of("", *MASKS),
    "weights_sha256": _SHA,
    "architecture": _TEXT,
    "config_sha256": _SHA,
    "config": _TEXT,
}
