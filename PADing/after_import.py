"""Imports one module right after another: ``import_after("detectron2.data", "PADing.data.registration")``."""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def import_after(name: str, follower: str) -> None:
    """Import ``follower`` now if the module ``name`` is imported, else as soon as somebody has imported it."""
    if name in sys.modules:
        importlib.import_module(follower)
    else:
        sys.meta_path.insert(0, _Finder(name, follower))


class _Finder(MetaPathFinder):
    """Finds the module ``name`` where the finders behind it do, and adds the import of ``follower``."""

    def __init__(self, name: str, follower: str):
        self.name, self.follower = name, follower

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        for finder in [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]:
            spec = finder.find_spec(fullname, path, target) if hasattr(finder, "find_spec") else None
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, self)
                return spec
        return None


class _Loader(Loader):
    """The module's own loader, then the import of the follower; afterwards the module has its own loader again."""

    def __init__(self, loader: Loader, finder: _Finder):
        self.loader, self.finder = loader, finder

    def __getattr__(self, name: str):  # such as get_source, for whoever looks for the module without importing it
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        importlib.import_module(self.finder.follower)
        if self.finder in sys.meta_path:  # it stays after a failure: the next attempt needs it again
            sys.meta_path.remove(self.finder)
