"""The config node, the global config, and the ``configurable`` decorator."""

import functools
import inspect
import logging
from collections.abc import Callable

from detectron2.utils.file_io import PathManager
from fvcore.common.config import CfgNode as _CfgNode
from yacs.config import CfgNode as YacsNode  # the base of fvcore's and of ours

__all__ = ["CfgNode", "get_cfg", "global_cfg", "set_global_cfg", "configurable"]


class CfgNode(_CfgNode):
    """fvcore's ``CfgNode``, reading files through ``PathManager`` and accepting the tags that published configs use."""

    @classmethod
    def _open_cfg(cls, filename: str):
        return PathManager.open(filename, "r")

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = True) -> None:
        """Merge a YAML file and the files it names under ``_BASE_`` into this node.

        Args:
            cfg_filename: path or URL of the file.
            allow_unsafe: also accept tags that construct Python objects. Only read files that you trust.

        Raises:
            AssertionError: the file does not exist, or its ``VERSION`` is newer than this node's.
            KeyError: the file has a key that this node does not know.
            ValueError: a value's type differs from the default's, or the file is of config version 1.
        """
        assert PathManager.isfile(cfg_filename), f"Config file '{cfg_filename}' does not exist!"
        loaded = type(self)(self.load_yaml_with_base(cfg_filename, allow_unsafe=allow_unsafe))
        latest = self.VERSION
        version = loaded.get("VERSION")
        if version is None:
            logging.getLogger(__name__).warning(
                "Config '%s' has no VERSION. Assuming it to be compatible with the latest, %s.", cfg_filename, latest
            )
            version = latest
        assert version <= latest, (
            f"Cannot merge config '{cfg_filename}' of VERSION {version} into one of VERSION {latest}: it is too new."
        )
        if version < latest:
            raise ValueError(
                f"Config '{cfg_filename}' is of VERSION {version}, and d2lite does not convert old configs. "
                f"Rename its keys to those of VERSION {latest}, or convert it with the genuine Detectron2."
            )
        self.merge_from_other_cfg(loaded)


global_cfg = CfgNode()


def get_cfg() -> CfgNode:
    """A fresh copy of the default config."""
    from .defaults import _C

    return _C.clone()


def set_global_cfg(cfg: CfgNode) -> None:
    """Let the module-level ``global_cfg`` have the content of ``cfg``."""
    global_cfg.clear()
    global_cfg.update(cfg)


def configurable(init_func: Callable | None = None, *, from_config: Callable | None = None) -> Callable:
    """Let a function be called either with its own arguments or with a config.

    On a class, decorate ``__init__``; the class has a classmethod ``from_config(cls, cfg, ...)`` that returns the
    arguments of ``__init__`` as a dict. On a function, give it: ``@configurable(from_config=lambda cfg: {...})``.
    The config is recognised as the first positional argument or as the keyword ``cfg``. Positional arguments, and those
    keywords that ``from_config`` names, go to ``from_config``; other keywords override its result.

    Raises:
        TypeError: misuse of the decorator, or a ``from_config`` whose first parameter is not called ``cfg``.
    """
    if init_func is not None:
        if not inspect.isfunction(init_func) or from_config is not None or init_func.__name__ != "__init__":
            raise TypeError("@configurable without arguments decorates an __init__; see its documentation.")
        return _configurable_init(init_func)
    if from_config is None:
        return configurable
    if not inspect.isfunction(from_config):
        raise TypeError("The from_config argument of @configurable must be a function.")
    _check_first_parameter(from_config, 0, "from_config")

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def wrapped(*args, **kwargs):
            if _called_with_cfg(*args, **kwargs):
                return function(**_arguments_from_config(from_config, *args, **kwargs))
            return function(*args, **kwargs)

        wrapped.from_config = from_config
        return wrapped

    return decorate


def _configurable_init(init_func: Callable) -> Callable:
    @functools.wraps(init_func)
    def wrapped(self, *args, **kwargs):
        cls = type(self)
        if not hasattr(cls, "from_config"):
            raise TypeError(f"Class {cls.__name__} with @configurable must have a 'from_config' classmethod.")
        if not inspect.ismethod(cls.from_config):
            raise TypeError(f"'from_config' of class {cls.__name__} must be a classmethod.")
        if _called_with_cfg(*args, **kwargs):
            # Parameters of the bound method: cls is gone already.
            _check_first_parameter(cls.from_config, 0, f"{cls.__name__}.from_config")
            init_func(self, **_arguments_from_config(cls.from_config, *args, **kwargs))
        else:
            init_func(self, *args, **kwargs)

    return wrapped


def _check_first_parameter(function: Callable, index: int, name: str) -> None:
    parameters = list(inspect.signature(function).parameters)
    if len(parameters) <= index or parameters[index] != "cfg":
        raise TypeError(f"{name} must take 'cfg' as its first argument, but it takes {parameters}.")


def _called_with_cfg(*args, **kwargs) -> bool:
    return isinstance(args[0] if args else kwargs.get("cfg"), YacsNode)


def _arguments_from_config(from_config: Callable, *args, **kwargs) -> dict:
    parameters = inspect.signature(from_config).parameters
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values()):
        return from_config(*args, **kwargs)
    overrides = {name: kwargs.pop(name) for name in list(kwargs) if name not in parameters}
    return {**from_config(*args, **kwargs), **overrides}
