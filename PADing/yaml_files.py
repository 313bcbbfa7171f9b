"""Reads YAML without running code: config files with their ``_BASE_`` files, split files, lists of methods."""

import ast
import logging
import operator
import os
from collections.abc import Callable
from typing import Any

import yaml

from PADing.errors import UserError
from PADing.files import REPOSITORY, or_shipped

# Environment variable: 1 lets YAML files create any Python object, which can run code of the file's author.
UNSAFE_VARIABLE = "PADING_UNSAFE_YAML"
_MAX_BYTES = 2**24
# Values of one file with its aliases expanded. A table of COCO's classes has about a thousand.
_MAX_VALUES = 200_000
_MAX_DEPTH = 100  # a few thousand crash PyYAML's compiled parser
_MAX_FILES = 50
_TAGS = "tag:yaml.org,2002:python/"
# The operators and functions that an `eval` tag may use.
_SIGNS: dict[type, Callable] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_OPERATORS: dict[type, Callable] = {
    **{ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul},
    **{ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod},
}
_FUNCTIONS: dict[str, Callable] = {
    **{"int": int, "float": float, "range": range, "list": list, "tuple": tuple},
    "round": lambda value: round(value),  # no second argument: a million digits would fill the memory
}
_MAX_TEXT = 500
_MAX_ITEMS = 10_000


try:
    from yaml import CSafeLoader as _SafeLoader
except ImportError:  # PyYAML was built without its compiled parser
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]


class _Loader(_SafeLoader):
    """PyYAML's safe loader with the two tags that published config files use: tuples and arithmetic."""


class _UnknownTag(ValueError):
    """A tag that may run code; its arguments are the tag and its line."""


def _refuse(loader: yaml.Loader, node: yaml.Node) -> None:
    raise _UnknownTag(node.tag.replace("tag:yaml.org,2002:", "!!"), node.start_mark.line + 1)


def _tuple(loader: yaml.Loader, node: yaml.SequenceNode) -> tuple:
    return tuple(loader.construct_sequence(node, deep=True))


def _expression(loader: yaml.Loader, node: yaml.Node) -> Any:
    arguments = loader.construct_sequence(node) if isinstance(node, yaml.SequenceNode) else []
    if len(arguments) != 1 or not isinstance(arguments[0], str):
        raise ValueError("`eval` takes one text")
    return evaluate_arithmetic(arguments[0])


_Loader.add_constructor(None, _refuse)
_Loader.add_constructor(_TAGS + "tuple", _tuple)
_Loader.add_constructor(_TAGS + "object/apply:eval", _expression)


def _check_size(text: str) -> None:
    """ValueError for aliases that contain themselves or expand to a huge or deep tree; builds no values."""
    named: dict[str | None, tuple[int, int]] = {}  # anchor -> number of values with aliases expanded, depth
    nodes: list[tuple[str | None, int, int]] = [("", 0, 0)]  # of open nodes: anchor, values and depth so far
    for event in yaml.parse(text, Loader=_Loader):
        values, depth = 0, 0
        if isinstance(event, yaml.CollectionStartEvent):
            nodes.append((event.anchor, 1, 1))
        elif isinstance(event, yaml.ScalarEvent):
            values = 1
            named[event.anchor] = values, depth
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, values, depth = nodes.pop()
            named[anchor] = values, depth
        elif isinstance(event, yaml.AliasEvent):
            if any(event.anchor == anchor for anchor, *_ in nodes):
                raise ValueError("an alias contains itself")
            values, depth = named.get(event.anchor, (1, 0))
        anchor, values_before, depth_before = nodes[-1]
        nodes[-1] = (anchor, values_before + values, max(depth_before, depth + 1))
        if values_before + values > _MAX_VALUES:
            raise ValueError(f"it has more than {_MAX_VALUES} values with its aliases expanded")
        if len(nodes) + depth > _MAX_DEPTH:
            raise ValueError("it is nested too deep with its aliases expanded")


def read_yaml(path: str | os.PathLike, what: str, foreign: bool = False) -> Any:
    """The content of one YAML file. Code in it is not run unless ``PADING_UNSAFE_YAML=1``.

    Args:
        path: the file.
        what: the kind of file, with which messages begin.
        foreign: the file comes from somebody else, so code in it is never run.

    Raises:
        UserError: no such file, a folder, not text, not YAML, empty, too large, or a tag that could run code.
    """
    text = _read_text(path, what)
    loader: type = _Loader
    if os.environ.get(UNSAFE_VARIABLE) == "1" and not foreign:
        logging.getLogger(__name__).warning("%s=1: %s %s may run code.", UNSAFE_VARIABLE, what, path)
        loader = yaml.UnsafeLoader
    try:
        _check_size(text)
        content = yaml.load(text, Loader=loader)
    except _UnknownTag as error:
        (tag, line), trust = error.args, f"If you trust the file's author, you can set {UNSAFE_VARIABLE}=1."
        cure = f"which can run code. Write the value itself instead of the tag. {trust}"
        raise UserError(f"{what} {path} is refused: line {line} has the tag {tag}, {cure}") from error
    except yaml.MarkedYAMLError as error:
        place = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise UserError(f"{what} {path} is not valid YAML: {error.problem or error.context}{place}.") from error
    except Exception as error:  # a tag on an unfit value, as in `!!int x`, raises KeyError, IndexError, ...
        raise UserError(f"{what} {path} is not valid YAML: {error}") from error
    if content is None:
        raise UserError(f"{what} {path} is empty. Is the download or copy complete?")
    return content


def _read_text(path: str | os.PathLike, what: str) -> str:
    if not os.path.isfile(path):
        folder = os.path.isdir(path)
        raise UserError(f"{what} {path} {'is a folder. Give the YAML file itself' if folder else 'does not exist'}.")
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{what} {path} cannot be read: {error.strerror}.") from error
    if len(content) > _MAX_BYTES:
        raise UserError(f"{what} {path} is larger than {_MAX_BYTES // 2**20} MiB. Is it a YAML file?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{what} {path} is not UTF-8 text (byte {error.start}). Is it a YAML file?") from error
    if "\0" in text:
        raise UserError(f"{what} {path} is not text. Is it a YAML file?")
    return text


def read_config_tree(path: str | os.PathLike) -> dict[str, Any]:
    """A config file as nested dicts, merged over the files that it names under ``_BASE_``.

    ``_BASE_`` is one path or a list of paths (later ones win), relative to the file that names them; or the path of a
    config that this project ships (``configs/mini/Base.yaml``).

    Raises:
        UserError: as ``read_yaml``; keys that are not text; a ``_BASE_`` that is missing, circular or does not fit.
    """
    return read_config_files(path)[0]


def read_config_files(path: str | os.PathLike) -> tuple[dict[str, Any], list[str]]:
    """As :func:`read_config_tree`, and the folders of all files that were read, with the folder of ``path`` first."""
    folders: list[str] = []
    return _read_tree(or_shipped(path), (), folders), list(dict.fromkeys(folders))


def _read_tree(path: str, descendants: tuple[str, ...], folders: list[str]) -> dict[str, Any]:
    """``descendants``: the files whose ``_BASE_`` led here. ``folders``: the folder of each file read is appended."""
    what = "Config file" if not descendants else f"_BASE_ of config file {descendants[-1]}:"
    if os.path.realpath(path) in map(os.path.realpath, descendants):
        raise UserError(f"Config file {path} has itself as _BASE_, by way of {' -> '.join((*descendants, path))}.")
    folders.append(os.path.dirname(os.path.abspath(path)))
    if len(folders) > _MAX_FILES:
        raise UserError(f"Config file {descendants[0]} has more than {_MAX_FILES} _BASE_ files.")
    tree = read_yaml(path, what)
    check_keys(tree, f"{what} {path}")
    bases = tree.pop("_BASE_", [])
    result: dict[str, Any] = {}
    for base in bases if isinstance(bases, list | tuple) else [bases]:
        if not isinstance(base, str) or "\0" in base:
            raise UserError(f"{what} {path}: _BASE_ must be a path or a list of paths, not {base!r}.")
        beside = os.path.join(os.path.dirname(path), os.path.expanduser(base))
        shipped = os.path.join(REPOSITORY, base)
        base = shipped if not os.path.exists(beside) and os.path.isfile(shipped) else beside
        result = _overlaid(result, _read_tree(base, (*descendants, path), folders), f"{what} {path}", "")
    return _overlaid(result, tree, f"{what} {path}", "")


def check_keys(tree: Any, where: str, section: str = "") -> None:
    """UserError, which begins with ``where``, unless a config tree is nested dicts whose keys are text."""
    if not isinstance(tree, dict):
        raise UserError(f"{where} must hold KEY: value lines, not a {type(tree).__name__}. Is it a config file?")
    for key, value in tree.items():
        if not isinstance(key, str):
            raise UserError(f"{where}: the key {key!r}{section and ' in ' + section} must be text.")
        if isinstance(value, dict):
            check_keys(value, where, f"{section}.{key}".lstrip("."))


def _overlaid(base: dict, tree: dict, where: str, section: str) -> dict:
    """A new dict: ``base`` overlaid with the values of ``tree``, section by section."""
    result = dict(base)
    for key, value in tree.items():
        if isinstance(value, dict) and key in base:
            if not isinstance(base[key], dict):
                raise UserError(f"{where}: {section}{key} is a section here but a plain value in the _BASE_ file.")
            value = _overlaid(base[key], value, where, f"{section}{key}.")
        result[key] = value
    return result


def evaluate_arithmetic(text: str):
    """The value of an arithmetic expression such as ``[int(x * 0.1 * 640) for x in range(5, 21)]``.

    Allowed are numbers, ``+ - * / // %``, lists, tuples, ``int float round range list tuple`` and list comprehensions
    without a condition. ValueError for anything else, and for more than 10,000 items.
    """
    if len(text) > _MAX_TEXT:
        raise ValueError(f"an expression of more than {_MAX_TEXT} characters")
    try:
        return _Evaluator().value(ast.parse(text.strip(), mode="eval").body, {})
    except (SyntaxError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ValueError(f"the expression {text!r} has no value ({error})") from error


class _Evaluator:
    items_left = _MAX_ITEMS

    def value(self, node: ast.expr, names: dict):
        match node:
            case ast.Constant(value=int() | float()):
                return node.value
            case ast.Name(id=name) if name in names:
                return names[name]
            case ast.List(elts=parts):
                return [self.value(part, names) for part in parts]
            case ast.Tuple(elts=parts):
                return tuple(self.value(part, names) for part in parts)
            case ast.UnaryOp(op=sign, operand=part) if type(sign) in _SIGNS:
                return _SIGNS[type(sign)](self._number(part, names))
            case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATORS:
                return _OPERATORS[type(sign)](self._number(left, names), self._number(right, names))
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
                made = _FUNCTIONS[name](*(self.value(argument, names) for argument in arguments))
                if not isinstance(made, int | float):
                    self.items_left -= len(made)  # one budget for all calls, because nested loops multiply items
                    if self.items_left < 0:
                        raise ValueError(f"an expression with more than {_MAX_ITEMS} items")
                return made
            case ast.ListComp(elt=part, generators=[ast.comprehension(target=ast.Name(id=name), iter=source, ifs=[])]):
                return [self.value(part, {**names, name: item}) for item in self.value(source, names)]
        raise ValueError(f"`{ast.unparse(node)}` is not arithmetic")

    def _number(self, node: ast.expr, names: dict) -> int | float:
        value = self.value(node, names)
        if not isinstance(value, int | float):
            raise ValueError(f"`{ast.unparse(node)}` is not a number")
        return value
