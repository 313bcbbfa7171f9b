"""Describes and verifies feature folders; needs no PyTorch model."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from PADing.errors import UserError, refuse
from PADing.features.folder import FeatureFolder
from PADing.features.header import Header, read_header
from PADing.features.shards import shard_path

__all__ = ["describe", "verify"]


def describe(path: Path) -> str:
    """What a folder holds, as text; the folder may be incomplete."""
    header = read_header(path)
    files = [shard_path(path, number) for number in range(header.shards)]
    present = [file for file in files if file.is_file()]
    state = "complete" if len(present) == len(files) else f"incomplete: {len(present)} of {len(files)} shards"
    size = sum(file.stat().st_size for file in present)
    rows: list[tuple[str, Any]] = [
        ("part", f"{header.part} of {header.data_set}"),
        ("state", f"{state}, {size / 2**20:.1f} MiB"),
        ("records", f"{header.records:,} ({header.images:,} images, {header.passes} passes)"),
        ("features", f"{header.queries} queries of width {header.width}, {header.dtype}"),
        *_of_part(header),
        ("classes", f"{len(header.classes)}, of these {len(header.unseen)} unseen"),
        ("unseen", ", ".join(header.unseen) or "none"),
        ("model", f"{header.architecture}, config {header.config_sha256[:12]}"),
        ("weights", f"SHA-256 {header.weights_sha256}"),
        ("data", f"SHA-256 {header.data_sha256}"),
    ]
    return "\n".join(f"{name:9} {value}" for name, value in rows)


def _of_part(header: Header) -> list[tuple[str, Any]]:
    if header.part == "val":
        return [("masks", header.masks)]
    kept = f"{header.unmatched} of those without a class" if header.unmatched else "all queries"
    return [("stored", kept), ("seed", header.seed)]


def verify(path: Path) -> str:
    """Check all that can be checked without model and images; returns a line about what was found.

    Raises:
        UserError: lists all damaged shards and records.
    """
    folder = FeatureFolder(path)
    header, problems = folder.header, list[str]()
    met: Counter[int] = Counter()
    for number in range(header.shards):
        try:
            for record in header.records_of(number):
                kept: Any = folder.trained(record) if header.part == "train" else folder.evaluated(record)
                met[kept.image] += 1
                if header.part == "val" and np.isnan(kept.masks).any():
                    raise UserError(f"{shard_path(path, number)}, record {record}: the masks hold NaN.")
        except UserError as error:
            problems.append(str(error))
    refuse(problems)
    if odd := [image for image in range(header.images) if met[image] != header.passes]:
        raise UserError(
            f"{path}: image {folder.images[odd[0]]['id']} occurs {met[odd[0]]} times in place of {header.passes}. "
            "Write the features again."
        )
    return f"{path}: {header.records:,} records in {header.shards} shards are intact."
