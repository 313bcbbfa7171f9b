"""Imports methods: those of this package, and the plug-ins that a config names under ``PLUGINS``.

A method is a module that registers its parts when it is imported. It may define ``add_config(cfg)``, which adds its
config keys, and ``CONFIG_RULES``, which check their values (``PADing.config_check``).
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from types import ModuleType

import PADing
from PADing.config_values import literal
from PADing.errors import UserError
from PADing.files import REPOSITORY


def import_plugins(names, config_folders: Sequence[str] = ()) -> list[ModuleType]:
    """Import plug-ins: installed modules, or modules in the repository, the config's folders or the current folder.

    The folder of a plug-in stays at the end of ``sys.path``, so that its parts can be imported later.

    Raises:
        UserError: ``names`` are not module names; a plug-in does not exist or needs a package that is not installed.
    """
    return [_import(name, [str(REPOSITORY), *config_folders, os.getcwd()]) for name in plugin_names(names)]


def import_methods() -> list[ModuleType]:
    """Import the methods of this package, ``PADing.METHODS``, which need no entry under ``PLUGINS``."""
    return [_import(name, [str(REPOSITORY)]) for name in PADing.METHODS]


def imported_methods(names) -> list[ModuleType]:
    """The methods of this package and of ``names`` (a value of ``PLUGINS``) that are imported already."""
    wanted = (*PADing.METHODS, *plugin_names(names))
    return [sys.modules[name] for name in wanted if name in sys.modules]


def plugin_names(names) -> list[str]:
    """The modules that a value of ``PLUGINS`` names, a list or text; UserError if it is neither."""
    names = literal(names)
    names = [name.strip() for name in names.split(",") if name.strip()] if isinstance(names, str) else names
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise UserError(f'PLUGINS must be names of modules, such as ("my_method",), not {names!r}.')
    return list(names)


def _import(name: str, folders: list[str]) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"PLUGINS names {name!r}, which is not the name of a module, such as my_method.")
    top = name.split(".")[0]
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        sys.path += [folder for folder in folders if PathFinder.find_spec(top, [folder]) is not None][:1]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing and f"{name}.".startswith(f"{missing}."):
            places = ", ".join(dict.fromkeys(folders))
            raise UserError(f"PLUGINS names {name!r}, which is neither installed nor in {places}.") from error
        raise UserError(f"PLUGINS names {name!r}, which needs {missing or 'a module'}: {error}.") from error
