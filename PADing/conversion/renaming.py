"""A table of two projects' names for the same weights, which is read in either direction."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from PADing.errors import UserError

_FIELDS = {"i": r"\d+", "j": r"\d+", "p": r"weight|bias", "s": r"weight|bias|running_mean|running_var", "w": r".+"}


class Same(NamedTuple):
    """One of our names, and the names of the same weight elsewhere.

    A field such as ``{i}`` stands for the same text in all: ``i`` and ``j`` a number, ``p`` weight or bias, ``s`` also
    statistics, ``w`` anything. Several names elsewhere are parts of equal size of our weight, along its first axis.
    """

    ours: str
    theirs: tuple[str, ...]


def same(ours: str, *theirs: str) -> Same:
    """A row of the table."""
    return Same(ours, theirs)


def to_ours(weights: Mapping[str, Tensor], table: Sequence[Same], ignored: str, where: str) -> dict[str, Tensor]:
    """Weights with our names.

    Args:
        weights: with the other project's names.
        table: all names that are known.
        ignored: an expression for names that have no place here, such as those of a classifier.
        where: the file, with which messages begin.

    Raises:
        UserError: names that are not in the table, or parts of a weight that are missing.
    """
    parts: dict[str, dict[int, Tensor]] = defaultdict(dict)
    counts: dict[str, int] = {}
    unknown = []
    rows = [(_pattern(name), row, part) for row in table for part, name in enumerate(row.theirs)]
    for name, value in weights.items():
        if re.fullmatch(ignored, name):
            continue
        found = next(((match, row, part) for rule, row, part in rows if (match := rule.fullmatch(name))), None)
        if found is None:
            unknown.append(name)
            continue
        match, row, part = found
        ours = row.ours.format(**match.groupdict())
        parts[ours][part] = value
        counts[ours] = len(row.theirs)
    _refuse_unknown(unknown, where)
    torn = [name for name, pieces in parts.items() if len(pieces) != counts[name]]
    if torn:
        raise UserError(f"{where} cannot be converted: it has a part only of what becomes {torn[0]}.")
    return {name: _joined(name, [pieces[k] for k in sorted(pieces)], where) for name, pieces in parts.items()}


def to_theirs(weights: Mapping[str, Tensor], table: Sequence[Same], ignored: str, where: str) -> dict[str, Tensor]:
    """Weights with the other project's names; arguments and errors as in ``to_ours``."""
    result: dict[str, Tensor] = {}
    unknown = []
    rows = [(_pattern(row.ours), row) for row in table]
    for name, value in weights.items():
        if re.fullmatch(ignored, name):
            continue
        found = next(((match, row) for rule, row in rows if (match := rule.fullmatch(name))), None)
        if found is None:
            unknown.append(name)
            continue
        match, row = found
        pieces = value.chunk(len(row.theirs)) if len(row.theirs) > 1 else (value,)
        for other, piece in zip(row.theirs, pieces, strict=True):
            result[other.format(**match.groupdict())] = piece.contiguous()
    _refuse_unknown(unknown, where)
    return result


def listed(names: Iterable[str]) -> str:
    """Some names for a message."""
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _refuse_unknown(unknown: list[str], where: str) -> None:
    if unknown:
        raise UserError(f"{where} cannot be converted: it has weights without a place here: {listed(unknown)}.")


def _joined(name: str, pieces: list[Tensor], where: str) -> Tensor:
    if len(pieces) == 1:
        return pieces[0]
    if len({(piece.shape, piece.dtype) for piece in pieces}) > 1:
        raise UserError(f"{where} cannot be converted: the parts of what becomes {name} have different shapes.")
    return torch.cat(pieces)


def _pattern(template: str) -> re.Pattern[str]:
    pieces = re.split(r"\{(\w)\}", template)
    return re.compile("".join(f"(?P<{x}>{_FIELDS[x]})" if k % 2 else re.escape(x) for k, x in enumerate(pieces)))
