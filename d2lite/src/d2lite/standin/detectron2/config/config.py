"""The config node, and a global config for the whole program."""

import logging
import os
from typing import Any

import yaml
from detectron2.utils.file_io import PathManager
from fvcore.common.config import BASE_KEY
from fvcore.common.config import CfgNode as FvcoreNode

from .configurable import configurable  # noqa: F401 - people import it from here


class _SafeLoader(yaml.SafeLoader):
    """Plain values, and the tuples that published files contain."""

    def tuple_of(self, node: yaml.SequenceNode) -> tuple:
        return tuple(self.construct_sequence(node, deep=True))


_SafeLoader.add_constructor("tag:yaml.org,2002:python/tuple", _SafeLoader.tuple_of)


class CfgNode(FvcoreNode):
    """A config section: keys are attributes, defaults fix their types, and a file may have base files."""

    @classmethod
    def _open_cfg(cls, filename: str):
        return PathManager.open(filename, "r")

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict[str, Any]:
        """A YAML file (path or URL) as nested dicts, merged over its ``_BASE_`` (a path or a list of paths).

        Relative ``_BASE_`` paths start at its folder. ``allow_unsafe`` allows tags that create Python objects, if also
        ``D2LITE_UNSAFE_YAML=1`` is set; unlike in Detectron2, the argument alone is not enough.
        """
        unsafe = allow_unsafe and os.environ.get("D2LITE_UNSAFE_YAML") == "1"
        return cls._tree(filename, yaml.UnsafeLoader if unsafe else _SafeLoader, frozenset())

    @classmethod
    def _tree(cls, filename: str, loader: type, users: frozenset[str]) -> dict[str, Any]:
        if filename in users:
            raise ValueError(f"{BASE_KEY} of {filename} leads back to that file.")
        with cls._open_cfg(filename) as file:
            own = yaml.load(file, Loader=loader) or {}
        bases, tree = own.pop(BASE_KEY, []), dict[str, Any]()
        for base in [bases] if isinstance(bases, str) else bases:
            path = os.path.expanduser(base)
            if "://" not in path:
                path = os.path.normpath(os.path.join(os.path.dirname(filename), path))
            tree = _stacked(tree, cls._tree(path, loader, users | {filename}), filename)
        return _stacked(tree, own, filename)

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = True) -> None:
        """Set the values of a YAML file; KeyError for an unknown key, ValueError for another type."""
        assert PathManager.isfile(cfg_filename), f"There is no config file {cfg_filename!r}."
        node = type(self)(self.load_yaml_with_base(cfg_filename, allow_unsafe=allow_unsafe))
        if "VERSION" not in node:
            logging.getLogger(__name__).warning(
                "%s does not say its VERSION; its keys are read as those of VERSION %s.", cfg_filename, self.VERSION
            )
        made_for = node.get("VERSION", self.VERSION)
        assert made_for <= self.VERSION, f"{cfg_filename} needs VERSION {made_for}, later than {self.VERSION} of here."
        if made_for != self.VERSION:
            raise ValueError(
                f"{cfg_filename} has the keys of VERSION {made_for}. d2lite reads those of VERSION {self.VERSION}: "
                "rename them, or convert the file with the genuine Detectron2."
            )
        self.merge_from_other_cfg(node)


def _stacked(lower: dict, upper: dict, filename: str) -> dict:
    """``lower`` with the values of ``upper`` over it; sections in both are stacked in turn."""
    result = {**lower, **upper}
    for key in lower.keys() & upper.keys():
        if isinstance(upper[key], dict):
            if not isinstance(lower[key], dict):
                raise ValueError(f"{filename}: section {key} would replace a plain value of its {BASE_KEY}.")
            result[key] = _stacked(lower[key], upper[key], filename)
    return result


global_cfg = CfgNode()


def set_global_cfg(cfg: CfgNode) -> None:
    """Replace the keys of ``global_cfg`` by those of ``cfg``, in place, for modules that have imported it."""
    for key in global_cfg.keys() - cfg.keys():
        del global_cfg[key]
    global_cfg.update(cfg)


def get_cfg() -> CfgNode:
    """A new node with the default values."""
    from .defaults import _C

    return _C.clone()
