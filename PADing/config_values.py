"""Converts values of a YAML file or a command line to the types of config keys, and reports every mistake.

Several spellings are accepted: ``1`` and ``1e3`` for an integer or a float, ``name`` and ``a,b`` for a tuple, lists for
tuples. The message for any other value shows what to write.
"""

import ast
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode

from PADing.errors import UserError, did_you_mean

_SWITCH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class _Mismatch(Exception):
    """A value cannot be converted to the wanted type."""


def parse_opts(opts: Sequence) -> list:
    """``KEY value`` pairs and ``KEY=value`` items as a flat ``[KEY, value, ...]`` list; UserError for other forms."""
    flat: list = []
    for item in opts:
        if len(flat) % 2 == 0 and isinstance(item, str) and item.startswith("--"):
            raise UserError(f"{item} comes after a config override. Put flags before the first KEY value pair.")
        # Only an item in the place of a key is split: a value may contain "=".
        if len(flat) % 2 == 0 and isinstance(item, str) and "=" in item:
            flat.extend(item.split("=", 1))
        else:
            flat.append(item)
    if len(flat) % 2:
        raise UserError(f"Config overrides come as KEY value pairs, but the last key {flat[-1]!r} has no value.")
    return flat


def merge_opts(cfg: CfgNode, opts: Sequence, defaults: CfgNode) -> list[str]:
    """Set ``[KEY, value, ...]`` in ``cfg``, in place and in order; see ``merge``."""
    problems = []
    for key, value in zip(opts[0::2], opts[1::2], strict=True):
        for part in reversed(str(key).split(".")):
            value = {part: value}
        problems += merge(cfg, value, "command line", defaults)
    return problems


def merge(cfg: CfgNode, tree: Mapping, where: str, defaults: CfgNode) -> list[str]:
    """Set the values of the nested dicts ``tree`` in ``cfg``, in place; a key with a wrong value stays as it was.

    Strings are read as Python literals where the value in ``defaults`` is a number, a list or None. Returns a sentence
    that begins with ``where`` for each unknown key and each value of a wrong type.
    """
    known = [key for key, _ in leaves(cfg)]
    return [f"{where}: {problem}" for problem in _merge(cfg, tree, "", defaults, known)]


def literal(value):
    """The value of a text that is a Python literal, such as ``("a", "b")`` or ``1e3``; anything else unchanged."""
    try:
        return ast.literal_eval(value.strip()) if isinstance(value, str) else value
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _merge(node: CfgNode, tree: Mapping, prefix: str, defaults: CfgNode, known: list[str]) -> Iterator[str]:
    for key, value in tree.items():
        full, default = prefix + key, defaults.get(key, node.get(key))
        if key not in node:
            if node.is_new_allowed():
                node[key] = CfgNode(value) if isinstance(value, dict) else literal(value)
            else:
                yield from (_unknown(leaf, known) for leaf, _ in leaves({key: value}, prefix))
        elif isinstance(node[key], CfgNode) and isinstance(value, dict):
            yield from _merge(node[key], value, f"{full}.", default, known)
        elif isinstance(node[key], CfgNode):
            first = next((leaf for leaf, _ in leaves(node[key], f"{full}.")), full)
            yield f"{full} is a section and takes no value. Set one of its keys, such as {first}."
        elif isinstance(value, dict) and value:
            yield from (_unknown(leaf, known) for leaf, _ in leaves(value, f"{full}."))
        else:
            try:
                node[key] = _converted(value, default)
            except _Mismatch:
                yield f"{full} is {value!r}. {_form(full, default)}"


def _converted(value, default):
    """``value`` as the type of ``default``."""
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    found = literal(value)
    if default is None:
        return found
    if isinstance(default, str):
        if found is None or isinstance(found, str):
            return found or ""
        if isinstance(value, list | tuple | dict):
            raise _Mismatch
        return str(value)  # a name that looks like a number
    if isinstance(default, list | tuple):
        return type(default)(_as_items(found, default))
    if isinstance(default, bool):
        switch = _SWITCH.get(found.strip().lower()) if isinstance(found, str) else found
        if switch not in (True, False):  # also 1 and 0
            raise _Mismatch
        return bool(switch)
    return _as_number(found, type(default))


def _as_number(found, kind: type):
    if isinstance(found, str) and found.strip().lower().lstrip("+-") in ("inf", "nan"):
        found = float(found)  # the check of values reports it with the key
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise _Mismatch
    if kind is int and isinstance(found, float):
        if not found.is_integer():
            raise _Mismatch
        return int(found)
    return float(found) if kind is float else found


def _as_items(found, default: Sequence) -> list:
    if isinstance(found, str):
        # a or a,b, or (a,b) after the shell has removed the quotes
        text = found.strip()
        if text[:1] + text[-1:] in ("()", "[]"):
            text = text[1:-1]
        found = [item.strip().strip("'\"") for item in text.split(",") if item.strip()]
    elif isinstance(found, int | float) and not isinstance(found, bool):
        found = [found]
    if not isinstance(found, list | tuple):
        raise _Mismatch
    if default and all(type(item) is int for item in default):
        return [int(item) if isinstance(item, float) and item.is_integer() else item for item in found]
    return list(found)


def _form(key: str, default) -> str:
    if isinstance(default, bool):
        return "Write True or False."
    if isinstance(default, list | tuple):
        return f"""Write a list, such as {key} '{default or '("name_1", "name_2")'}'."""
    if isinstance(default, str):
        return "Write a text."
    return f"Write a {'whole ' if isinstance(default, int) else ''}number, such as {default}."


def _unknown(key: str, known: list[str]) -> str:
    same_end = [name for name in known if name.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]][:3]
    hint = did_you_mean(key, known) or (f" (did you mean {', '.join(same_end)}?)" if same_end else "")
    lead = "" if hint else " `python -m PADing.config_reference` lists all keys."
    return f"{key or repr(key)} is not a config key{hint}.{lead}"


def leaves(node: Mapping, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys such as ``SOLVER.BASE_LR`` and values of nested dicts or a config; an empty dict is a value."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
