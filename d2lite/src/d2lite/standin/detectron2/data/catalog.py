"""The two global catalogs: how to load a data set, and what is known about it."""

from collections import UserDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

__all__ = ["DatasetCatalog", "MetadataCatalog", "Metadata"]


class _DatasetCatalog(UserDict):
    """Data set name -> a function without arguments that returns the data set, usually a list of dicts.

    Nothing is loaded before :meth:`get`, so data sets whose files are absent may be registered.
    """

    def register(self, name: str, func: Callable[[], list[dict]]) -> None:
        """Add a data set.

        Args:
            name: for example ``"coco_2017_train"``.
            func: called by each :meth:`get`; it should return the same in the same order each time.

        Raises:
            AssertionError: ``func`` is not callable, or the name is taken.
        """
        assert callable(func), f"DatasetCatalog needs a function that returns the data set {name!r}, not {func!r}."
        assert name not in self, f"Dataset '{name}' is already registered! Remove it first, or choose another name."
        self[name] = func

    def get(self, name: str) -> list[dict]:
        """Load a data set: call its function.

        Raises:
            KeyError: no data set of that name; the message lists the known ones.
        """
        try:
            func = self[name]
        except KeyError as error:
            raise KeyError(
                f"Dataset '{name}' is not registered! Available datasets are: {', '.join(self) or '(none)'}"
            ) from error
        return func()

    def list(self) -> list[str]:
        """Names of all data sets, in the order of registration."""
        return [*self]

    def remove(self, name: str) -> None:
        """Forget a data set (its metadata stays). KeyError when there is none of that name."""
        del self[name]

    def __str__(self) -> str:
        return f"DatasetCatalog(registered datasets: {', '.join(self)})"

    __repr__ = __str__


class Metadata(SimpleNamespace):
    """What is known about one data set: class names, colours, paths, the map of ids. Attributes, set once.

    Setting an attribute again to an equal value does nothing; to replace a value, ``delattr`` it first. Values are
    compared by ``==``, so arrays and tensors do not fit.
    """

    name: str = "N/A"

    def __getattr__(self, key: str) -> Any:
        raise AttributeError(
            f"Attribute '{key}' does not exist in the metadata of dataset '{self.name}'. "
            f"Available keys are {list(self.__dict__)}."
        )

    def __setattr__(self, key: str, value: Any) -> None:
        known = self.__dict__
        assert key not in known or known[key] == value, (
            f"Attribute '{key}' in the metadata of '{self.name}' cannot be set to a different value!\n"
            f"{known[key]} != {value}"
        )
        super().__setattr__(key, value)

    def as_dict(self) -> dict[str, Any]:
        """A shallow copy, as a dict."""
        return dict(self.__dict__)

    def set(self, **fields: Any) -> "Metadata":
        """Set several attributes; returns itself."""
        for key, value in fields.items():
            setattr(self, key, value)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        """The attribute, or ``default`` when it was never set."""
        return self.__dict__.get(key, default)


class _MetadataCatalog(UserDict):
    """Data set name -> :class:`Metadata`, made empty when it is first asked for."""

    def get(self, name: str) -> Metadata:
        """The metadata of a data set: one object per name, whether or not the data set is registered."""
        assert name, "A data set must have a name."
        if name not in self:
            self[name] = Metadata(name=name)
        return self[name]

    def list(self) -> list[str]:
        """Names of all data sets that have metadata."""
        return [*self]

    def remove(self, name: str) -> None:
        """Forget the metadata of a data set. KeyError when there is none."""
        del self[name]

    def __str__(self) -> str:
        return f"MetadataCatalog(registered metadata: {', '.join(self)})"

    __repr__ = __str__


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()
