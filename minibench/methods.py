"""What is compared: the methods that ``minibench.yaml`` files describe, found in the repository and in plug-ins.

The format is described in ``docs/add_a_method.md``.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from PADing.errors import UserError
from PADing.yaml_files import read_yaml

REPOSITORY = Path(__file__).resolve().parents[1]
FILE_NAME = "minibench.yaml"
# The method whose weights everything else starts from.
PRETRAINING = "baseline"
# Where a method's first weights come from, beside other methods: none; those of ``PRETRAINING``; the same with PADing's
# classifier added (tools/preprocess_pretrained_weight.py).
STARTS = ("nothing", "pretrained", "converted")
TASKS = ("panoptic", "instance")
# What the runner calls its own steps.
STEPS = ("data", "convert")
BUDGETS = ("quick", "full")

_KEYS = {
    "name": str,
    "title": str,
    "task": str,
    "config": str,
    "starts_from": str,
    "weights_key": str,
    "uses": dict,
    "ablates": str,
    "removes": str,
    "iterations": (int, dict),
    "set": dict,
    "tune": dict,
}
_SEARCH_KEYS = {"keys": list, "trials": list, "iterations": int, "finalists": int}
_NEEDED = ("name", "title", "task", "config", "starts_from", "iterations")


@dataclass(frozen=True)
class Search:
    """The settings that a method tries on the tuning split (``tune`` in the file).

    Attributes:
        keys: config keys. trials: for each setting the values of these keys.
        iterations: length of the trials; None: that of the budget.
        finalists: how many of the best trials are trained again with the length of the budget, to decide among them.
    """

    keys: tuple[str, ...]
    trials: tuple[tuple, ...]
    iterations: int | None = None
    finalists: int = 0


@dataclass(frozen=True)
class Method:
    """One row of the table; the fields are those of ``minibench.yaml``.

    Attributes:
        config: absolute path of its YAML config.
        uses: config key -> the method whose final weights are named there.
        iterations: for each budget; 0: nothing is trained, the start weights are evaluated.
        settings: config key -> value (``set`` in the file).
        search: what is tried on the tuning split, None for nothing.
        file: the ``minibench.yaml`` that describes it.
    """

    name: str
    title: str
    task: str
    config: Path
    starts_from: str
    iterations: dict[str, int]
    file: Path
    weights_key: str = "MODEL.WEIGHTS"
    uses: Mapping[str, str] = field(default_factory=dict)
    ablates: str = ""
    removes: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    search: Search | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the methods that have to be trained before this one."""
        start = {"nothing": (), "pretrained": (PRETRAINING,), "converted": (PRETRAINING,)}
        return tuple(dict.fromkeys([*start.get(self.starts_from, (self.starts_from,)), *self.uses.values()]))


def discover(plugins: Sequence[Path] = (), repository: Path = REPOSITORY) -> dict[str, Method]:
    """All methods by name: those of the repository's top-level folders, then those of ``plugins``.

    Args:
        plugins: folders with a ``minibench.yaml``, or folders of such folders.

    Raises:
        UserError: a mistake in a file; two methods of one name; a start that does not exist; a circle of starts.
    """
    files = sorted(repository.glob(f"*/{FILE_NAME}"))
    for folder in map(Path, plugins):
        found = [folder / FILE_NAME] if (folder / FILE_NAME).is_file() else sorted(folder.glob(f"*/{FILE_NAME}"))
        if not found:
            raise UserError(f"--plugins {folder}: there is no {FILE_NAME} in it, nor in a folder in it.")
        files += [file.resolve() for file in found]
    methods: dict[str, Method] = {}
    for file in dict.fromkeys(files):
        for method in read_methods(file, repository):
            if method.name in methods:
                first = methods[method.name].file
                raise UserError(f"{file}: the method name {method.name!r} is taken already, by {first}.")
            methods[method.name] = method
    _check_links(methods)
    return methods


def ordered(methods: Mapping[str, Method], names: Iterable[str]) -> list[Method]:
    """``names`` and all that they need, each after what it needs.

    Raises:
        UserError: a name that is no method's; near matches are named.
    """
    done: dict[str, Method] = {}

    def add(name: str) -> None:
        if name not in methods:
            near = get_close_matches(name, methods, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise UserError(f"There is no method {name!r}.{hint} Methods: {', '.join(methods)}.")
        if name not in done:
            for needed in methods[name].needs:
                add(needed)
            done[name] = methods[name]

    for name in names:
        add(name)
    return list(done.values())


def read_methods(file: Path, repository: Path = REPOSITORY) -> list[Method]:
    """The methods of one file, each checked by itself.

    Raises:
        UserError: not YAML; a key that is unknown, missing, or holds the wrong kind of value; a config that is missing.
    """
    content = read_yaml(file, "Methods file")
    if not isinstance(content, dict) or list(content) != ["methods"] or not isinstance(content["methods"], list):
        raise UserError(f"{file} must hold one key, `methods`, with a list of methods.")
    return [_method(entry, f"{file}: method {i + 1}", file, repository) for i, entry in enumerate(content["methods"])]


def _method(entry: Any, where: str, file: Path, repository: Path) -> Method:
    if not isinstance(entry, dict):
        raise UserError(f"{where} must be a mapping with {', '.join(_NEEDED)}, but is {entry!r}.")
    if isinstance(entry.get("name"), str):
        where = f"{where} ({entry['name']})"
    for key, value in entry.items():
        if key not in _KEYS:
            near = get_close_matches(str(key), _KEYS, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"known keys are {', '.join(_KEYS)}"
            raise UserError(f"{where}: unknown key `{key}`; {hint}")
        if not isinstance(value, _KEYS[key]) or isinstance(value, bool):
            kinds = {str: "text", dict: "a mapping", (int, dict): "a number, or one for each of quick and full"}
            raise UserError(f"{where}: `{key}` must be {kinds[_KEYS[key]]}, but is {value!r}.")
    for key in _NEEDED:
        if key not in entry:
            raise UserError(f"{where}: the key `{key}` is missing.")
    if not re.fullmatch(r"[a-z0-9_]+", entry["name"]) or entry["name"] in (*STARTS, *STEPS):
        raise UserError(f"{where}: `name` is made of a-z, 0-9 and _, and is none of {', '.join((*STARTS, *STEPS))}.")
    if entry["task"] not in TASKS:
        raise UserError(f"{where}: `task` must be one of {', '.join(TASKS)}, but is {entry['task']!r}.")
    folder = file.parent if entry["config"].startswith("./") else repository
    config = folder / entry["config"]
    if not config.is_file():
        raise UserError(f"{where}: its config {config} does not exist.")
    length = _iterations(entry["iterations"], where)
    search = _search(entry["tune"], where) if "tune" in entry else None
    if search and search.finalists and search.iterations >= length["full"]:
        raise UserError(
            f"{where}: `tune` trials of {search.iterations} iterations are no shorter than the full length, "
            f"{length['full']}, so `finalists` would be no longer."
        )
    return Method(
        **{k: v for k, v in entry.items() if k not in ("config", "iterations", "set", "tune", "uses")},
        config=config.resolve(),
        iterations=length,
        uses=_uses(entry.get("uses", {}), where),
        settings=entry.get("set", {}),
        search=search,
        file=file,
    )


def _iterations(value: int | dict, where: str) -> dict[str, int]:
    value = dict.fromkeys(BUDGETS, value) if isinstance(value, int) else value
    numbers = all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in value.values())
    if set(value) != set(BUDGETS) or not numbers:
        raise UserError(f"{where}: `iterations` must be a number from 0, or one for each of {' and '.join(BUDGETS)}.")
    return value


def _uses(value: dict, where: str) -> dict[str, str]:
    for key, method in value.items():
        if not isinstance(method, str):
            raise UserError(f"{where}: `uses` maps config keys to names of methods, but {key} is {method!r}.")
    return value


def _search(value: dict, where: str) -> Search:
    where = f"{where}: `tune`"
    for key, content in value.items():
        if not isinstance(content, _SEARCH_KEYS.get(key, ())) or isinstance(content, bool):
            raise UserError(
                f"{where} has `keys` and `trials`, both lists, and may have the numbers `iterations` and `finalists`; "
                f"not {key}: {content!r}."
            )
    keys, trials = value.get("keys"), value.get("trials")
    if not keys or not trials or not all(isinstance(key, str) for key in keys):
        raise UserError(f"{where} needs `keys`, a list of config keys, and `trials`, a list of settings.")
    for trial in trials:
        if not isinstance(trial, list) or len(trial) != len(keys):
            raise UserError(f"{where}: each of `trials` lists {len(keys)} values, one for each key, not {trial!r}.")
    if value.get("iterations", 1) < 1:
        raise UserError(f"{where}: `iterations` must be at least 1.")
    finalists = value.get("finalists", 0)
    if finalists and ("iterations" not in value or not 2 <= finalists < len(trials)):
        raise UserError(
            f"{where}: `finalists` are at least 2 and fewer than the {len(trials)} trials, whose `iterations` must be "
            "named."
        )
    return Search(tuple(keys), tuple(map(tuple, trials)), value.get("iterations"), finalists)


def _check_links(methods: Mapping[str, Method]) -> None:
    for method in methods.values():
        where = f"{method.file}: method {method.name}"
        links = {"starts_from": method.starts_from, **{f"uses {key}": name for key, name in method.uses.items()}}
        for key, name in links.items():
            if key == "starts_from" and name in STARTS:
                continue
            if name not in methods:
                raise UserError(f"{where}: `{key}` names {name!r}, which is no method, nor {', '.join(STARTS)}.")
            if not all(methods[name].iterations.values()):
                raise UserError(f"{where}: `{key}` names {name!r}, which trains nothing, so it has no weights.")
        if PRETRAINING in method.needs and PRETRAINING not in methods:
            raise UserError(f"{where}: it starts from {method.starts_from} weights, but no method is {PRETRAINING!r}.")
        if method.ablates and method.ablates not in methods:
            raise UserError(f"{where}: `ablates` names {method.ablates!r}, which is no method.")
        chain = [method.name]
        while len(chain) <= len(methods) and chain[-1] in methods and methods[chain[-1]].ablates:
            chain.append(methods[chain[-1]].ablates)
            if chain[-1] == method.name:
                raise UserError(f"{where}: `ablates` leads back to it: {' -> '.join(chain)}.")
    for method in methods.values():
        path = _circle(methods, [method.name])
        if path:
            raise UserError(f"{method.file}: methods wait for each other in a circle: {' -> '.join(path)}.")


def _circle(methods: Mapping[str, Method], path: list[str]) -> list[str]:
    for name in methods[path[-1]].needs:
        if name == path[0]:
            return [*path, name]
        if name not in path and (found := _circle(methods, [*path, name])):
            return found
    return []
