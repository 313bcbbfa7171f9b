"""The form of results of version 2: types, keys and ranges of numbers, before anything is computed from them.

Files may come from strangers. So a reader learns here, in words, what is not as the benchmark writes it.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from minibench.methods import TASKS_OF
from PADing.errors import MOST_LISTED, UserError, short
from PADing.files import read_json

__all__ = ["RESULTS_VERSION", "malformed", "malformed_entry", "malformed_row", "read_causes_results", "read_results"]

RESULTS_VERSION = 2
_LONGEST = 300  # characters of a name
_MOST = 2**53  # JSON's whole numbers beyond this are not exact
Check = Callable[[Any, str], Iterator[str]]


def read_results(path: Path) -> dict[str, Any]:
    """The content of a ``results.json`` of version 2; metrics may be None, where there was nothing to measure.

    Raises:
        UserError: no such file, no JSON, results of version 1, or what the benchmark does not write.
    """
    content = read_json(path, "Results of the mini benchmark")
    if found := malformed(content):
        raise UserError(f"{path} is not what `minibench run --version 2` writes: " + "; ".join(found) + ".")
    return content


def read_causes_results(path: Path) -> dict[str, Any]:
    """The content of a ``causes.json``; UserError as ``read_results``."""
    content = read_json(path, "Results of the cause experiments")
    if found := list(islice(_CAUSES(content, ""), MOST_LISTED)):
        what = f"{path} is not what `python -m minibench causes` writes: " + "; ".join(found)
        raise UserError(f"{what}. Make it again: python -m minibench causes RUN")
    return content


def malformed(results: Any) -> list[str]:
    """What is wrong with the form of a results.json, in words, at most twelve of it."""
    if not isinstance(results, dict) or results.get("version") != RESULTS_VERSION:
        own = results.get("version") if isinstance(results, dict) else results
        return [f"it has version {short(own)}; this program reads version {RESULTS_VERSION}"]
    return list(islice(_RESULTS(results, ""), MOST_LISTED))


def malformed_row(row: Any) -> list[str]:
    """The same of one row, such as the content of its file."""
    return list(islice(_ROW(row, ""), MOST_LISTED))


def malformed_entry(entry: Any) -> list[str]:
    """The same of an entry of the leaderboard."""
    return list(islice(_ENTRY(entry, ""), MOST_LISTED))


def _rule(holds: Callable[[Any], bool], wanted: str) -> Check:
    def check(value: Any, where: str) -> Iterator[str]:
        if not holds(value):
            yield f"{where or 'it'} must be {wanted}, but is {short(value)}"

    return check


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST and value.isprintable()


def _whole(least: int) -> Check:
    return _rule(lambda v: type(v) is int and least <= v <= _MOST, f"a whole number of at least {least}")


def _number(least: float, most: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and least <= value <= most  # NaN is neither


def _fields(wanted: Mapping[str, Check], may: Mapping[str, Check] | None = None) -> Check:
    """An object with some keys; others may be there."""

    def check(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{where or 'it'} must be an object, but is {short(value)}"
            return
        for key, rule in wanted.items():
            if key in value:
                yield from rule(value[key], f"{where}.{key}" if where else key)
            else:
                yield f"{where or 'it'} lacks `{key}`"
        for key, rule in (may or {}).items():
            if key in value:
                yield from rule(value[key], f"{where}.{key}" if where else key)

    return check


def _list(rule: Check, least: int = 0) -> Check:
    def check(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, list) or len(value) < least:
            yield f"{where} must be a list" + f" of at least {least}" * bool(least) + f", but is {short(value)}"
            return
        for place, item in enumerate(value):
            yield from rule(item, f"{where}[{place}]")

    return check


def _table(rule: Check) -> Check:
    """An object with any keys."""

    def check(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{where} must be an object, but is {short(value)}"
            return
        for key, item in value.items():
            yield from _TEXT(key, f"a key of {where}")
            yield from rule(item, f"{where}[{short(key)}]")

    return check


_TEXT = _rule(_is_text, "a line of text")
_PERCENT = _rule(lambda v: v is None or _number(0, 100.001)(v), "a number from 0 to 100")
_ANY = _rule(lambda _: True, "")
_SECONDS = _rule(_number(0, 1e12), "a number of seconds")


def _is_point(value: Any) -> bool:
    finite = _number(-1e30, 1e30)
    return (
        isinstance(value, list)
        and len(value) == 3
        and (finite(value[0]) or value[0] in ("-inf", "inf"))
        and all(number is None or _number(0, 100.001)(number) for number in value[1:])
    )


_POINT = _rule(_is_point, "a bias, and two numbers from 0 to 100")
_METHOD = _fields(
    {
        "name": _TEXT,
        "title": _TEXT,
        "task": _rule(lambda v: isinstance(v, str) and v in TASKS_OF, f"one of {', '.join(TASKS_OF)}"),
        "kind": _TEXT,
        "limit": _rule(lambda v: isinstance(v, bool), "true or false"),
    },
    {**dict.fromkeys(("role", "ablates", "removes", "extends"), _TEXT), "expected_above": _table(_TEXT)},
)
_ROW = _fields(
    {
        **dict.fromkeys(("method", "world", "track", "hash", "data", "vectors", "config", "code", "commit"), _TEXT),
        **{"segmenter": _TEXT, "fold": _whole(1), "seed": _whole(0), "version": _whole(1)},
        **{"processor_seconds": _SECONDS, "results": _table(_table(_PERCENT))},
        **{"classes": _table(_table(_PERCENT)), "curves": _table(_list(_POINT))},
    }
)
_SHARED = {**dict.fromkeys(("world", "track", "budget"), _TEXT), "recipe": _whole(1), "rows": _list(_ROW)}
_RESULTS = _fields(
    {
        **_SHARED,
        **{"folds": _list(_whole(1)), "seeds": _list(_whole(0)), "methods": _list(_METHOD)},
        "data": _fields({"world": _TEXT, "vectors": _TEXT}),
        "trainings": _list(_fields({"name": _TEXT, "seconds": _SECONDS, "threads": _whole(0)})),
    },
    {"machine": _fields({}, {"cpu": _TEXT, "cores": _whole(1)})},
)
_METRIC = _rule(lambda v: v is None or _number(-1e12, 1e12)(v), "a number")
_CAUSES = _fields(
    {
        **{"world": _TEXT, "budget": _TEXT, "images": _whole(1), "chosen": _table(_table(_ANY))},
        **{"folds": _list(_whole(1)), "seeds": _list(_whole(0))},
        "rows": _list(_fields({"trial": _TEXT, "fold": _whole(1), "seed": _whole(0)}, {"metrics": _table(_METRIC)})),
    }
)
_ENTRY = _fields({**_SHARED, "version": _whole(1), "method": _METHOD, "tried": _whole(1), "rows": _list(_ROW, 1)})
