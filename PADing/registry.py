"""Registries for parts that a config or a split file chooses by name; a plug-in adds entries when it is imported."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class NamedRegistry(dict[str, T]):
    """Entries by name, in order of registration. ``what`` names an entry in messages, such as "a mapper"."""

    def __init__(self, what: str):
        super().__init__()
        self._what = what

    def register(self, *names: str) -> Callable[[T], T]:
        """Decorator: add an entry under ``names`` and return it; ValueError if a name is taken."""

        def add(entry: T) -> T:
            for name in names:
                if self.setdefault(name, entry) is not entry:
                    raise ValueError(f"There is already {self._what} called {name!r}. Choose another name.")
            return entry

        return add
