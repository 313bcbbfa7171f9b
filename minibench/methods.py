"""Methods and tasks; ``minibench.yaml`` files describe the methods (docs/add_a_method.md)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from PADing.errors import UserError, did_you_mean
from PADing.files import PACKAGES, REPOSITORY
from PADing.yaml_files import read_yaml

FILE_NAME = "minibench.yaml"
# Folders with the repository's own methods.
PLACES = ("*", "PADing/*", "baselines/*")  # below the repository
INSTALLED = ("d2zero", "frozenclip", "PADing/*", "baselines/*")  # below the packages
# Start weights of a method, beside those of another method: none; the shared pretraining; the same with PADing's
# classifier added (tools/preprocess_pretrained_weight.py).
STARTS = ("nothing", "pretrained", "converted")
# The shared pretraining; a method to compare with; the method of a paper.
ROLES = ("pretraining", "baseline", "main")
# Names of steps that are no methods.
STEPS = ("data", "convert", "toy_clip")
BUDGETS = ("quick", "full")
# Fields of a method in ``results.json`` for the report, beside name, title, task and iterations.
SHOWN = ("role", "ablates", "removes", "extends", "expected_above", "maps_features")

_TEXT, _MAPPING, _LENGTH = "text", "a mapping", "a number, or one for each of quick and full"
_KEYS: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("name", "title", "task", "config", "starts_from", "weights_key"), ((str,), _TEXT)),
    **dict.fromkeys(("role", "ablates", "removes", "extends"), ((str,), _TEXT)),
    **dict.fromkeys(("uses", "toy_clip", "set", "tune", "expected_above"), ((dict,), _MAPPING)),
    "iterations": ((int, dict), _LENGTH),
    "maps_features": ((bool,), "true or false"),
}
_NEEDED = ("name", "title", "task", "config", "starts_from", "iterations")


@dataclass(frozen=True)
class Task:
    """One kind of segmentation, with the names of its evaluator's metrics over seen and unseen classes.

    Attributes:
        key: in ``results.json``. title: for people. metric: its short name.
        seen, unseen, harmonic: keys of the means over seen and over unseen classes and of their harmonic mean, in %.
    """

    key: str
    title: str
    metric: str
    seen: str
    unseen: str
    harmonic: str

    @property
    def metrics(self) -> tuple[str, str, str]:
        """The three keys: seen, unseen, harmonic."""
        return self.seen, self.unseen, self.harmonic


PANOPTIC = Task("panoptic_seg", "Panoptic segmentation", "PQ", "PQ_se", "PQ_un", "PQ_hm")
SEMANTIC = Task("sem_seg", "Semantic segmentation", "IoU", "seen_IoU", "unseen_IoU", "hIoU")
INSTANCE = Task("segm", "Instance segmentation", "AP50", "AP50_seen", "AP50_unseen", "AP50_hm")
TASKS = (PANOPTIC, SEMANTIC, INSTANCE)
# ``task`` of a method -> tasks that it is evaluated on, its main task first. A panoptic model also gives semantic and
# instance results.
TASKS_OF = {"panoptic": TASKS, "instance": (INSTANCE,)}


@dataclass(frozen=True)
class Search:
    """The hyperparameters that a method tries on the tuning split (``tune`` in the file).

    Attributes:
        keys: config keys. trials: for each trial the values of these keys.
        iterations: length of the trials; None: that of the budget.
        finalists: number of the best trials that are trained again with the length of the budget; these decide.
    """

    keys: tuple[str, ...] = ()
    trials: tuple[tuple, ...] = ()
    iterations: int | None = None
    finalists: int = 0


@dataclass(frozen=True)
class Method:
    """One row of the tables; the fields are those of ``minibench.yaml``.

    A method that is read from ``results.json`` has the first fields only: it can be shown, but not run.

    Attributes:
        iterations: by budget; 0: the start weights are evaluated without training.
        role: one of ``ROLES``, or "".
        ablates: the method of which it is a variant, and ``removes``: what it lacks. extends: the method it adds to.
        expected_above: method -> its name in a heading; this method is expected to have a higher harmonic mean.
        maps_features: whether the report has a map of its generated features.
        config: absolute path of its YAML config.
        source: the method whose final weights it starts from ("" for none), by ``starts_from``.
        uses: config key -> the method whose final weights are the key's value.
        toy_clip: config key -> a file of the seed's toy CLIP that is the key's value; ".": its folder.
        overrides: config key -> value (``set`` in the file).
        search: trials on the tuning split.
        hyperparameters: in ``results.json``: config key -> value, of the keys that were tried on the tuning split.
        file: the ``minibench.yaml`` that describes it. import_from: the folder of a plug-in's package.
    """

    name: str
    title: str
    task: str
    iterations: Mapping[str, int] = field(default_factory=dict)
    role: str = ""
    ablates: str = ""
    removes: str = ""
    extends: str = ""
    expected_above: Mapping[str, str] = field(default_factory=dict)
    maps_features: bool = False
    config: Path = Path()
    starts_from: str = "nothing"
    source: str = ""
    weights_key: str = "MODEL.WEIGHTS"
    uses: Mapping[str, str] = field(default_factory=dict)
    toy_clip: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    search: Search = Search()
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    file: Path = Path()
    import_from: Path | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the methods that must be trained before this one."""
        return tuple(dict.fromkeys([*([self.source] if self.source else []), *self.uses.values()]))

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that it is evaluated on."""
        return TASKS_OF.get(self.task, TASKS)

    @property
    def main_task(self) -> Task:
        """The task of the report's verdicts."""
        return self.tasks[0]


def discover(plugins: Sequence[Path] = (), repository: Path = REPOSITORY) -> dict[str, Method]:
    """All methods by name: the repository's, then those of ``plugins``, folders with a ``minibench.yaml`` or of such.

    Raises:
        UserError: a mistake in a file; two methods with the same name; a start that does not exist; a circle of starts.
    """
    places = [(repository, place) for place in PLACES]
    places += [(PACKAGES, place) for place in INSTALLED if repository is REPOSITORY]
    files = {file: False for file in sorted({f for root, place in places for f in root.glob(f"{place}/{FILE_NAME}")})}
    for folder in map(Path, plugins):
        found = [folder / FILE_NAME] if (folder / FILE_NAME).is_file() else sorted(folder.glob(f"*/{FILE_NAME}"))
        if not found:
            raise UserError(f"--plugins {folder}: there is no {FILE_NAME} in it or in its subfolders.")
        for file in found:
            files.setdefault(file.resolve(), True)
    methods: dict[str, Method] = {}
    for file, is_plugin in files.items():
        for method in read_methods(file, repository):
            if method.name in methods:
                first = methods[method.name].file
                raise UserError(f"{file}: the method name {method.name!r} is already used by {first}.")
            methods[method.name] = replace(method, import_from=file.parent.parent if is_plugin else None)
    return _linked(methods)


def ordered(methods: Mapping[str, Method], names: Iterable[str]) -> list[Method]:
    """``names`` and the methods that they need, in the order of training; UserError for an unknown name."""
    done: dict[str, Method] = {}

    def add(name: str) -> None:
        if name not in methods:
            hint = did_you_mean(name, methods, 1)
            raise UserError(f"There is no method {name!r}{hint}. Methods: {', '.join(methods)}.")
        if name not in done:
            for needed in methods[name].needs:
                add(needed)
            done[name] = methods[name]

    for name in names:
        add(name)
    return list(done.values())


def read_methods(file: Path, repository: Path = REPOSITORY) -> list[Method]:
    """The methods of one file; UserError names the key that is wrong."""
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
            hint = did_you_mean(key, _KEYS, 1) or f"; known keys are {', '.join(_KEYS)}"
            raise UserError(f"{where}: unknown key `{key}`{hint}")
        kinds, wanted = _KEYS[key]
        fits = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
        _require(fits, f"{where}: `{key}` must be {wanted}, but is {value!r}.")
    for key in _NEEDED:
        _require(key in entry, f"{where}: the key `{key}` is missing.")
    taken = (*STARTS, *STEPS)
    fits = bool(re.fullmatch(r"[a-z0-9_]+", entry["name"])) and entry["name"] not in taken
    _require(fits, f"{where}: `name` must consist of a-z, 0-9 and _, and must not be one of {', '.join(taken)}.")
    for key, known in (("task", tuple(TASKS_OF)), ("role", ROLES)):
        value = entry.get(key, known[0])
        _require(value in known, f"{where}: `{key}` must be one of {', '.join(known)}, but is {value!r}.")
    for key, kind in (
        ("uses", "config keys to names of methods"),
        ("toy_clip", "config keys to names of its files"),
        ("expected_above", "names of methods to headings"),
    ):
        for left, right in entry.get(key, {}).items():
            _require(isinstance(right, str), f"{where}: `{key}` maps {kind}, but {left} is {right!r}.")
    config = (file.parent if entry["config"].startswith("./") else repository) / entry["config"]
    _require(config.is_file(), f"{where}: its config {config} does not exist.")
    length = _iterations(entry["iterations"], where)
    return Method(
        **{k: v for k, v in entry.items() if k not in ("config", "iterations", "set", "tune")},
        config=config.resolve(),
        iterations=length,
        overrides=entry.get("set", {}),
        search=_search(entry["tune"], length["full"], f"{where}: `tune`") if "tune" in entry else Search(),
        file=file,
    )


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise UserError(message)


def _iterations(value: int | dict, where: str) -> dict[str, int]:
    value = dict.fromkeys(BUDGETS, value) if isinstance(value, int) else value
    numbers = all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in value.values())
    wanted = f"a number from 0, or one for each of {' and '.join(BUDGETS)}"
    _require(set(value) == set(BUDGETS) and numbers, f"{where}: `iterations` must be {wanted}.")
    return value


def _search(value: dict, full: int, where: str) -> Search:
    """``full``: iterations of the full budget."""
    kinds: dict[str, type] = {"keys": list, "trials": list, "iterations": int, "finalists": int}
    known = "`keys` and `trials`, both lists, and may have the numbers `iterations` and `finalists`"
    for key, content in value.items():
        fits = isinstance(content, kinds.get(key, ())) and not isinstance(content, bool)
        _require(fits, f"{where} has {known}; not {key}: {content!r}.")
    keys, trials = value.get("keys", []), value.get("trials", [])
    complete = keys and trials and all(isinstance(key, str) for key in keys)
    _require(complete, f"{where} needs `keys`, a list of config keys, and `trials`, a list of lists of their values.")
    for trial in trials:
        fits = isinstance(trial, list) and len(trial) == len(keys)
        _require(fits, f"{where}: each of `trials` lists {len(keys)} values, one for each key, not {trial!r}.")
    length, finalists = value.get("iterations"), value.get("finalists", 0)
    _require(length is None or length >= 1, f"{where}: `iterations` must be at least 1.")
    if finalists:
        few = f"at least 2 and fewer than the {len(trials)} trials"
        fits = length is not None and 2 <= finalists < len(trials)
        _require(fits, f"{where}: `finalists` are {few}, whose `iterations` must be named.")
        shorter = f"{where} trials of {length} iterations are no shorter than the full length, {full}"
        _require(value["iterations"] < full, f"{shorter}, so `finalists` would be no longer.")
    return Search(tuple(keys), tuple(map(tuple, trials)), length, finalists)


def _linked(methods: Mapping[str, Method]) -> dict[str, Method]:
    """The methods with their ``source``, after a check of their references to each other."""
    pretrainings = [m for m in methods.values() if m.role == "pretraining"]
    if len(pretrainings) > 1:
        raise UserError(f"{pretrainings[1].file}: `role: pretraining` is already used by {pretrainings[0].name}.")
    linked = {}
    for name, method in methods.items():
        where, start = f"{method.file}: method {name}", method.starts_from
        source = start if start not in STARTS else ""
        for key, other in (("starts_from", source), *((f"uses {key}", other) for key, other in method.uses.items())):
            known = f"{where}: `{key}` names {other!r}, which"
            _require(not other or other in methods, f"{known} is no method, nor {', '.join(STARTS)}.")
            trained = not other or all(methods[other].iterations.values())
            _require(trained, f"{known} trains nothing, so it has no weights.")
        if start in STARTS[1:]:
            lacking = f"{where}: it starts from {start} weights, but no method has `role: pretraining`."
            _require(bool(pretrainings), lacking)
            source = pretrainings[0].name
        links = [("ablates", method.ablates), ("extends", method.extends)]
        for key, other in (*links, *(("expected_above", other) for other in method.expected_above)):
            _require(not other or other in methods, f"{where}: `{key}` names {other!r}, which is no method.")
        linked[name] = replace(method, source=source)
    variants = {m.name: {other for other in (m.ablates, m.extends) if other} for m in linked.values()}
    _check_circles(linked, variants, "`ablates` leads back to it")
    _check_circles(linked, {m.name: m.needs for m in linked.values()}, "methods wait for each other in a circle")
    return linked


def _check_circles(methods: Mapping[str, Method], links: Mapping[str, Iterable[str]], problem: str) -> None:
    try:
        TopologicalSorter(links).prepare()
    except CycleError as error:
        circle = error.args[1][::-1]
        raise UserError(f"{methods[circle[0]].file}: {problem}: {' -> '.join(circle)}.") from None
