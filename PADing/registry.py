"""Registries of what a config or a split file chooses by a name; a plug-in adds to them when it is imported."""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")


class NamedRegistry(Mapping[str, T]):
    """Entries by name, in the order of their registration; ``what`` says in messages what an entry is."""

    def __init__(self, what: str):
        self._what = what
        self._entries: dict[str, T] = {}

    def register(self, *names: str) -> Callable[[T], T]:
        """A decorator that adds an entry under ``names`` and returns it; ValueError when a name is taken."""

        def add(entry: T) -> T:
            for name in names:
                if self._entries.setdefault(name, entry) is not entry:
                    raise ValueError(f"There is already {self._what} called {name!r}. Choose another name.")
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
