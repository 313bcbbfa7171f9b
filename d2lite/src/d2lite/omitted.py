"""The error for parts of Detectron2 that the stand-in does not have."""

import sys
from collections.abc import Callable

ADVICE = (
    "d2lite, the stand-in for Detectron2, leaves it out. "
    "Install the genuine Detectron2 (main branch) to use it; `python -m d2lite` says which one is in use."
)


def omitted_names(module: str, imported: str = "") -> Callable[[str], object]:
    """A module ``__getattr__`` that explains missing names; it raises ImportError for the names in ``imported``."""

    def __getattr__(name: str) -> object:
        message = f"{module}.{name} is not available: {ADVICE}"
        if name in imported.split():
            raise ImportError(message, name=module)
        raise AttributeError(f"module {module!r} has no attribute {name!r}" if name.startswith("_") else message)

    return __getattr__


class _OmittedModules:
    """The last finder of the import system: explains why a module of a package does not exist."""

    def __init__(self, package: str):
        self.package = package

    def find_spec(self, fullname: str, path=None, target=None) -> None:
        if fullname.startswith(self.package + "."):
            # With name=fullname, `from package import name` would replace this error by another one.
            raise ModuleNotFoundError(f"{fullname} is not available: {ADVICE}", name=self.package)


def explain_missing_modules(package: str) -> None:
    """Make ``import package.anything_missing`` and ``from package import anything_missing`` raise the clear error."""
    if not any(isinstance(f, _OmittedModules) and f.package == package for f in sys.meta_path):
        sys.meta_path.append(_OmittedModules(package))
