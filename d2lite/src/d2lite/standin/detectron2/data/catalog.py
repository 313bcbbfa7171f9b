"""The two global catalogs: functions that load data sets, and metadata of data sets."""

from collections import UserDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class _Catalog(UserDict):
    def list(self) -> list[str]:
        """All names, the earliest first."""
        return list(self.data)

    def remove(self, name: str) -> None:
        """Remove a name; KeyError if it is not there."""
        del self.data[name]


class _DatasetCatalog(_Catalog):
    """Name -> function that loads the data set, whose files need not exist before."""

    def register(self, name: str, func: Callable[[], Any]) -> None:
        """Register a data set under a new name. Each ``get`` calls ``func()``, with the same dicts each time."""
        assert callable(func), f"{name} needs a function that loads it, not a {type(func).__name__}"
        assert name not in self.data, f"the name {name!r} is taken by another data set"
        self.data[name] = func

    def get(self, name: str) -> Any:  # type: ignore[override]  # unlike a dict's, without a default
        """Load a data set, usually a list of dicts; KeyError with the known names if it is not registered."""
        if name not in self.data:
            raise KeyError(f"there is no data set {name!r}; there are: {', '.join(self.data) or 'none'}")
        return self.data[name]()


class Metadata(SimpleNamespace):
    """Metadata of one data set as attributes, such as class names, colors and paths.

    An attribute keeps its first value, by ``==``: another one is an error. ``del`` frees it.
    """

    name: str = "N/A"

    def __setattr__(self, key: str, value: Any) -> None:
        if not hasattr(self, key):
            return super().__setattr__(key, value)
        present = getattr(self, key)
        assert present == value, f"{key!r} of data set {self.name} is {present!r} and cannot become {value!r}"

    def __getattr__(self, key: str) -> Any:
        raise AttributeError(f"{key!r} is not known about data set {self.name}, only {', '.join(vars(self))}")

    def set(self, **attributes: Any) -> "Metadata":
        """Set attributes; returns this object."""
        for key in attributes:
            setattr(self, key, attributes[key])
        return self

    def get(self, key: str, default: Any = None) -> Any:
        """An attribute, or the default."""
        return getattr(self, key, default)

    def as_dict(self) -> dict[str, Any]:
        """A new dict of the attributes that were set."""
        return {**vars(self)}


class _MetadataCatalog(_Catalog):
    """Name -> ``Metadata``; a name need not be a data set's."""

    def get(self, name: str) -> Metadata:  # type: ignore[override]  # unlike a dict's, without a default
        """The ``Metadata`` of this name, created at the first call."""
        assert name, "metadata need the name of a data set"
        return self.data.setdefault(name, Metadata(name=name))


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()
