"""Finds the package that provides the import names ``detectron2`` and ``panopticapi``.

A genuine package is always preferred. Usually that needs no code, because the stand-ins are last on ``sys.path``. Two
kinds of editable install come later: those in a ``.pth`` file whose name sorts after ``d2lite.pth``, and those that an
import hook finds. When the stand-in is imported, it looks for these and lets them replace it.
"""

import importlib.util
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder
from pathlib import Path

STANDIN_FOLDER = Path(__file__).resolve().parent / "standin"
NAMES = ("detectron2", "panopticapi")


def _is_standin_folder(entry: str) -> bool:
    folder = Path(entry or ".").resolve()
    # The second case is another copy of d2lite.
    return folder == STANDIN_FOLDER or folder.parts[-2:] == ("d2lite", "standin")


def find_genuine(name: str) -> tuple[ModuleSpec, str] | None:
    """The spec of a genuine package, and "path" or "hook", without importing it; None if there is none.

    Folders without ``__init__.py`` do not count.
    """
    # Search the path, then the import hooks of editable installs.
    spec = PathFinder.find_spec(name, [entry for entry in sys.path if not _is_standin_folder(entry)])
    if spec is not None and _is_package(spec):
        return spec, "path"
    for finder in sys.meta_path:
        if finder in (PathFinder, BuiltinImporter, FrozenImporter) or not hasattr(finder, "find_spec"):
            continue
        spec = finder.find_spec(name, None)
        if spec is not None and _is_package(spec) and STANDIN_FOLDER not in _file(spec).parents:
            return spec, "hook"
    return None


def _is_package(spec: ModuleSpec) -> bool:
    return spec.loader is not None and spec.origin is not None and spec.has_location


def _file(spec: ModuleSpec) -> Path:
    return Path(str(spec.origin)).resolve()


def step_aside(name: str) -> bool:
    """If there is a genuine package, import it in place of the stand-in; returns whether there is one."""
    found = find_genuine(name) if "." not in name else None  # not when imported as d2lite.standin.{name}
    if found is None or found[0].loader is None:
        return False
    module = importlib.util.module_from_spec(found[0])
    standin = sys.modules[name]
    sys.modules[name] = module
    try:
        found[0].loader.exec_module(module)
    except BaseException:
        sys.modules[name] = standin
        raise
    return True


def describe(name: str) -> dict[str, str]:
    """``provider`` ("genuine", "stand-in" or "none"), ``location`` and ``why`` of a name, without importing it."""
    found = find_genuine(name)
    if found is not None:
        spec, how = found
        why = "it comes before the stand-in on sys.path"
        if how == "hook":
            why = "an editable install provides it through an import hook; the stand-in steps aside when imported"
        elif _comes_after_standin(_file(spec).parent.parent):
            why = "it comes after the stand-in on sys.path; the stand-in steps aside when imported"
        return {"provider": "genuine", "location": str(Path(str(spec.origin)).parent), "why": why}
    if any(_is_standin_folder(entry) for entry in sys.path):
        why = f"no genuine {name} is installed in this environment"
        return {"provider": "stand-in", "location": str(STANDIN_FOLDER / name), "why": why}
    why = f"no genuine {name} is installed and {STANDIN_FOLDER} is not on sys.path: reinstall d2lite"
    return {"provider": "none", "location": "-", "why": why}


def _comes_after_standin(folder: Path) -> bool:
    entries = [Path(entry or ".").resolve() for entry in sys.path]
    return STANDIN_FOLDER in entries and folder in entries and entries.index(STANDIN_FOLDER) < entries.index(folder)
