"""Fields that describe the same N objects of an image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Instances:
    """A table of N objects of one image: named columns ("fields") of equal length.

    A field is anything with a length that can be indexed: Tensor, Boxes, BitMasks, list. Fields are read and written as
    attributes; names that begin with an underscore are ordinary attributes.

    Args:
        image_size: (height, width) of the image, in pixels.
        fields: the first columns.
    """

    def __init__(self, image_size: tuple[int, int], **fields: Any):
        self._image_size = image_size
        self._fields: dict[str, Any] = {}
        for name, value in fields.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        return self._image_size

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        # Only called when there is no such attribute. "_fields" itself is missing while an object is unpickled.
        if name == "_fields" or name not in self._fields:
            raise AttributeError(f"Instances have no field {name!r}")
        return self._fields[name]

    def set(self, name: str, value: Any) -> None:
        """Add or replace a field. AssertionError when its length is not that of the others."""
        if self._fields:
            assert len(value) == len(self), f"field {name!r} has length {len(value)}, the others have {len(self)}"
        self._fields[name] = value

    def has(self, name: str) -> bool:
        return name in self._fields

    def get(self, name: str) -> Any:
        """The field; KeyError when there is none of that name."""
        return self._fields[name]

    def remove(self, name: str) -> None:
        del self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """The fields by name; changes of this dict change the object."""
        return self._fields

    def to(self, *args: Any, **kwargs: Any) -> Instances:
        """A copy whose fields are moved by their own ``to``; fields without one are kept."""
        moved = {k: v.to(*args, **kwargs) if hasattr(v, "to") else v for k, v in self._fields.items()}
        return Instances(self._image_size, **moved)

    def __getitem__(self, item: int | slice | Tensor) -> Instances:
        """The chosen objects, also for a single one still a table."""
        if type(item) is int:
            if not -len(self) <= item < len(self):
                raise IndexError(f"index {item} is out of range for {len(self)} instances")
            item = slice(item, item + 1 or None)
        chosen = Instances(self._image_size)
        for name, value in self._fields.items():
            if isinstance(value, (list, tuple)) and not isinstance(item, slice):
                value = _choose_from_list(value, item)
            else:
                value = value[item]
            chosen.set(name, value)
        return chosen

    def __len__(self) -> int:
        for value in self._fields.values():
            return len(value)
        raise NotImplementedError("Instances without fields have no length")

    def __iter__(self):
        raise NotImplementedError("Instances cannot be iterated over; index them instead")

    @staticmethod
    def cat(instance_lists: Sequence[Instances]) -> Instances:
        """The objects of several tables with the same fields and image size, one after the other."""
        assert len(instance_lists) > 0, "Instances.cat needs at least one object"
        assert all(isinstance(i, Instances) for i in instance_lists), "Instances.cat takes a list of Instances"
        first = instance_lists[0]
        if len(instance_lists) == 1:
            return first
        for other in instance_lists[1:]:
            assert other.image_size == first.image_size, f"image sizes differ: {first.image_size}, {other.image_size}"
            assert other._fields.keys() == first._fields.keys(), (
                f"fields differ: {sorted(first._fields)}, {sorted(other._fields)}"
            )
        merged = Instances(first.image_size)
        for name, sample in first._fields.items():
            values = [i.get(name) for i in instance_lists]
            if isinstance(sample, Tensor):
                value = torch.cat(values, dim=0)
            elif isinstance(sample, list):
                value = list(itertools.chain.from_iterable(values))
            elif hasattr(type(sample), "cat"):
                value = type(sample).cat(values)
            else:
                raise ValueError(f"field {name!r} of type {type(sample).__name__} cannot be concatenated")
            merged.set(name, value)
        return merged

    def __repr__(self) -> str:
        count = len(self) if self._fields else 0
        fields = ", ".join(f"{name}: {value}" for name, value in self._fields.items())
        height, width = self._image_size
        return f"Instances(num_instances={count}, image_height={height}, image_width={width}, fields=[{fields}])"


def _choose_from_list(values: Sequence, index) -> list:
    """Index a plain list like a tensor: by a bool mask or by positions."""
    index = torch.as_tensor(index)
    if index.dtype == torch.bool:
        assert len(index) == len(values), f"a mask of length {len(index)} cannot index a field of length {len(values)}"
        index = index.nonzero()
    return [values[i] for i in index.flatten().tolist()]
