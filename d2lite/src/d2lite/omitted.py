"""One clear error for the parts of Detectron2 that the stand-in leaves out."""

import sys
from collections.abc import Callable, Iterable

ADVICE = (
    "d2lite, the stand-in for Detectron2, leaves it out. "
    "Install the genuine Detectron2 (main branch) to use it; `python -m d2lite` says which one is in use."
)


def omitted_names(module: str, names: Iterable[str]) -> Callable[[str], object]:
    """A module-level ``__getattr__`` that explains the known names of ``module`` that are left out.

    It raises ImportError and not AttributeError for those, because ``from module import name`` would replace the
    message of the latter by its own.
    """
    names = frozenset(names)

    def __getattr__(name: str) -> object:
        if name in names:
            raise ImportError(f"{module}.{name} is not available: {ADVICE}", name=module)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__


class _OmittedModules:
    """Last resort of the import system: explains submodules that nothing else has found."""

    def __init__(self, package: str):
        self.package = package

    def find_spec(self, fullname: str, path=None, target=None) -> None:
        if fullname.startswith(self.package + "."):
            raise ModuleNotFoundError(f"No module named {fullname!r}: {ADVICE}", name=fullname)


def explain_missing_modules(package: str) -> None:
    """Make ``import package.anything_missing`` raise the clear error."""
    if not any(isinstance(f, _OmittedModules) and f.package == package for f in sys.meta_path):
        sys.meta_path.append(_OmittedModules(package))
