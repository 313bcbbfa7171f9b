"""Registries of what a config or a split file chooses by a name; a plug-in adds to them when it is imported."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class NamedRegistry(dict[str, T]):
    """Entries by name, in the order of their registration; ``what`` says in messages what an entry is."""

    def __init__(self, what: str):
        super().__init__()
        self._what = what

    def register(self, *names: str) -> Callable[[T], T]:
        """A decorator that adds an entry under ``names`` and returns it; ValueError when a name is taken."""

        def add(entry: T) -> T:
            for name in names:
                if self.setdefault(name, entry) is not entry:
                    raise ValueError(f"There is already {self._what} called {name!r}. Choose another name.")
            return entry

        return add
