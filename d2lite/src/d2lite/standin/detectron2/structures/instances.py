"""A table of the objects in one image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor


class Instances:
    """N objects in an image of ``image_size`` (h, w), as a table with a column, called field, for each property.

    Fields are read and written as attributes: a Tensor, a list, or any other object with a length and an index
    (``Boxes``, ``BitMasks``, ``PolygonMasks``). A name with a leading underscore is no field.
    """

    def __init__(self, image_size: tuple[int, int], **fields: Any):
        self._image_size = image_size
        self._fields: dict[str, Any] = {}
        for name in fields:
            self.set(name, fields[name])

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width)."""
        return self._image_size

    def get_fields(self) -> dict[str, Any]:
        """The dict of fields itself, not a copy."""
        return self._fields

    def has(self, name: str) -> bool:
        """Whether there is such a field."""
        return name in self._fields

    def get(self, name: str) -> Any:
        """A field; KeyError if it does not exist."""
        return self._fields[name]

    def set(self, name: str, value: Any) -> None:
        """Add a field, or replace it. AssertionError if it has not one entry for each object."""
        rows = len(value)
        assert not self._fields or rows == len(self), f"{name!r} has {rows} entries for {len(self)} objects."
        self._fields[name] = value

    def remove(self, name: str) -> None:
        """Delete a field; KeyError if it does not exist."""
        self._fields.pop(name)

    def __setattr__(self, name: str, value: Any) -> None:
        store = super().__setattr__ if name[:1] == "_" else self.set
        store(name, value)

    def __getattr__(self, name: str) -> Any:
        # Called for names that are not attributes. While a copy is made, there are no fields yet.
        fields = self.__dict__.get("_fields", {})
        if name in fields:
            return fields[name]
        raise AttributeError(f"These Instances have no field {name!r}, but: {', '.join(fields) or 'none at all'}.")

    def __len__(self) -> int:
        if not self._fields:
            raise NotImplementedError("The number of objects is not known before the first field is set.")
        return len(next(iter(self._fields.values())))

    def __getitem__(self, item: int | slice | Tensor) -> Instances:
        """The objects at an index, in a slice, or by an index or bool tensor (which lists refuse): always a table."""
        if isinstance(item, int):
            row = range(len(self))[item]  # IndexError beyond the end
            item = slice(row, row + 1)
        return self._with({name: column[item] for name, column in self._fields.items()})

    def __iter__(self):
        raise NotImplementedError("Instances cannot be iterated over: index them.")

    @staticmethod
    def cat(instance_lists: Sequence[Instances]) -> Instances:
        """The objects of several tables, which have the same fields and an image of the same size, in one."""
        assert instance_lists, "Instances.cat needs at least one member."
        first = instance_lists[0]
        for member in instance_lists:
            assert member.image_size == first.image_size, f"Images of {first.image_size} and {member.image_size}."
            assert set(member._fields) == set(first._fields), f"Fields {list(first._fields)}, {list(member._fields)}."
        if len(instance_lists) == 1:
            return first
        parts = {name: [member._fields[name] for member in instance_lists] for name in first._fields}
        return first._with({name: _join(name, columns) for name, columns in parts.items()})

    def to(self, *args: Any, **kwargs: Any) -> Instances:
        """A table on another device, or of another dtype: arguments go to the ``to`` of each field that has one."""
        columns = self._fields.items()
        return self._with({name: c.to(*args, **kwargs) if hasattr(c, "to") else c for name, c in columns})

    def _with(self, fields: dict[str, Any]) -> Instances:
        return Instances(self._image_size, **fields)

    def __repr__(self) -> str:
        rows = len(self) if self._fields else 0
        lines = [f"Instances of {rows} objects in an image of {self._image_size[0]} x {self._image_size[1]}"]
        lines += [f"{name} = {column}" for name, column in self._fields.items()]
        return "\n  ".join(lines)


def _join(name: str, parts: list[Any]) -> Any:
    """The entries of one field of several tables."""
    kind = type(parts[0])
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    if isinstance(parts[0], list):
        return list(chain(*parts))
    if hasattr(kind, "cat"):
        return kind.cat(parts)
    raise ValueError(f"The field {name!r} is a {kind.__name__}, which Instances cannot join.")
