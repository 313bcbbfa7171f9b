"""Reads a feature folder record by record; only the shard in use is mapped into memory."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from PADing.errors import UserError, short
from PADing.features.header import Header, read_header
from PADing.features.masks import decoded
from PADing.features.shards import read_shard, shard_path
from PADing.files import read_json

__all__ = ["IMAGES", "Evaluated", "FeatureFolder", "Trained", "data_hash", "images_of"]

IMAGES = "images.json"


@dataclass(frozen=True)
class Trained:
    """A record of the part "train": one view of an image.

    Attributes:
        image: position in the data set.
        features: (Q, d) float32. With sampled unmatched queries, each stored one stands for several.
        classes: (Q,) int64, the output of each query's class; -1: none.
    """

    image: int
    features: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True)
class Evaluated:
    """A record of the part "val": an image as the segmenter saw it.

    Attributes:
        image: position in the data set.
        features, logits, masks: (Q, d), (Q, K + 1), (Q, h, w) float32.
        padded, size: (height, width) of the padded input, and of the input before padding.
    """

    image: int
    features: np.ndarray
    logits: np.ndarray
    masks: np.ndarray
    padded: tuple[int, int]
    size: tuple[int, int]


def images_of(records: Sequence[dict]) -> list[dict[str, Any]]:
    """What a folder keeps of a data set's records: id, file, size if known, outputs of annotated classes."""
    found = []
    for record in records:
        name = os.path.basename(record["file_name"])
        entries = record.get("annotations") or record.get("segments_info") or ()
        size = {key: record[key] for key in ("height", "width") if key in record}
        classes = sorted(int(entry["category_id"]) for entry in entries)
        found.append({"id": record.get("image_id", name), "file": name, **size, "classes": classes})
    return found


def data_hash(images: Sequence[dict]) -> str:
    """SHA-256 of the entries of ``images_of``."""
    return hashlib.sha256(json.dumps(list(images), sort_keys=True).encode()).hexdigest()


class FeatureFolder:
    """A complete feature folder.

    Args:
        path: the folder.
        part: the part that it must be; "": any.

    Attributes:
        header: see ``Header``.
        images: the entries of ``images.json``, see ``images_of``.

    Raises:
        UserError: no feature folder, an incomplete one, another part, or damaged files. Shards are checked when they
            are opened.
    """

    def __init__(self, path: str | os.PathLike, part: str = ""):
        self.path = Path(path)
        self.header: Header = read_header(self.path)
        if part and self.header.part != part:
            raise UserError(
                f"{self.path} holds features of the part {self.header.part!r}, but {part!r} is needed. Write them "
                f"with: pading features write --part {part}."
            )
        missing = [i for i in range(self.header.shards) if not shard_path(self.path, i).is_file()]
        if missing:
            state = f"{len(missing)} of {self.header.shards} shards are missing, the first is {missing[0]}"
            raise UserError(
                f"{self.path} is incomplete: {state}. Run the command that wrote it again: it goes on there."
            )
        self.images: list[dict] = read_json(self.path / IMAGES, "Feature folder", list)
        if len(self.images) != self.header.images or data_hash(self.images) != self.header.data_sha256:
            raise UserError(f"{self.path / IMAGES} does not belong to this folder's features. Copy the folder again.")
        self._number, self._arrays = -1, dict[str, np.ndarray]()

    def __len__(self) -> int:
        return self.header.records

    def shard(self, number: int) -> dict[str, np.ndarray]:
        """The checked tensors of a shard; UserError as ``read_shard``."""
        if number != self._number:
            self._arrays = {}  # unmap the last one before
            self._arrays, self._number = read_shard(self.path, self.header, number), number
        return self._arrays

    def trained(self, record: int) -> Trained:
        """A record of the part "train"."""
        number, place = divmod(record, self.header.records_per_shard)
        arrays = self.shard(number)
        rows = slice(*arrays["offset"][place : place + 2])
        features = np.asarray(arrays["features"][rows], dtype=np.float32)
        query, classes = np.asarray(arrays["query"][rows]), np.asarray(arrays["class"][rows], dtype=np.int64)
        source = _sources(query, classes, self.header.queries, f"{shard_path(self.path, number)}, record {record}")
        return Trained(int(arrays["image"][place]), features[source], classes[source])

    def evaluated(self, record: int) -> Evaluated:
        """A record of the part "val"."""
        number, place = divmod(record, self.header.records_per_shard)
        arrays, header = self.shard(number), self.header
        first, last = (int(value) for value in arrays["mask_place"][place : place + 2])
        height, width = (int(value) for value in arrays["mask_size"][place])
        levels = np.asarray(arrays["levels"][place]) if "levels" in arrays else None
        where = f"{shard_path(self.path, number)}, record {record}"
        shape = (header.queries, height, width)
        masks = decoded(arrays["masks"][first:last].tobytes(), header.masks, shape, levels, where)
        padded, size, _ = ((int(a), int(b)) for a, b in arrays["size"][place])
        features, logits = (np.array(arrays[key][place], dtype=np.float32) for key in ("features", "logits"))
        return Evaluated(int(arrays["image"][place]), features, logits, masks, padded, size)


def _sources(query: np.ndarray, classes: np.ndarray, queries: int, where: str) -> np.ndarray:
    """For each query the row that stands for it, (Q,).

    Queries with a class have their own row. If others are sampled, all queries without a class share those: the j-th of
    these queries has row j modulo their number, in the order of the file, which is random. So the expectation of any
    mean over queries is that of all queries.
    """
    if len(set(query.tolist())) != len(query):
        raise UserError(f"{where}: a query occurs twice. Write the features again.")
    source = np.full(queries, -1)
    if len(query) == queries:
        source[query] = np.arange(queries)
        return source
    matched = np.flatnonzero(classes >= 0)
    source[query[matched]] = matched
    sampled, waiting = np.flatnonzero(classes < 0), np.flatnonzero(source < 0)
    if not len(sampled):
        wrong = f"{len(query)} rows stand for {queries} queries, but none of them is without a class"
        raise UserError(f"{where}: {wrong}. Write the features again. {short(query.tolist())}")
    source[waiting] = sampled[np.arange(len(waiting)) % len(sampled)]
    return source
