"""Pools the seeds of several ``results.json`` files whose runs have equal settings.

    python -m minibench pool first/results.json second/results.json --output pooled

Settings are equal if a run's hash is that of the present methods: the hash covers config, start weights, data and seed.
Runs with another hash go to ``other_settings.json``, which the report shows in a table of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from minibench.bench import MACHINE, OTHER, RESULTS, Bench, bench_of, read_content
from minibench.methods import TASKS, Method
from minibench.plan import Plan
from minibench.results import describe
from minibench.runs import Run
from minibench.settings import make_settings
from PADing.errors import UserError
from PADing.files import write_json

# What must be the same in all files.
_EQUAL = ("version", "split", "budget")
_EQUAL_DATA = ("version", "train", "val", "size", "noise")

# (method, seed, hash) -> the entry in the file, and the same as a run.
_Found = dict[tuple[str, int, str], tuple[dict, Run]]


def pool(files: Sequence[Path], methods: Mapping[str, Method], out: Path) -> str:
    """Write ``<out>/results.json``, and ``other_settings.json`` if there are runs with other settings.

    A run that is in several files counts once, as in the first of them; metrics by class are taken from a later one if
    all its metrics are equal.

    Args:
        files: ``results.json`` or ``other_settings.json`` of benchmarks with the same split, budget and data sizes.
        methods: all known methods by name. Those without a run are listed as not run.

    Returns:
        a sentence for the screen.

    Raises:
        UserError: a file that cannot be read or does not fit the others; ``out`` has results that are not in ``files``.
    """
    files = list(dict.fromkeys(path.absolute() for path in files))
    contents = [read_content(path) for path in files]
    benches = [bench_of(content, path) for content, path in zip(contents, files, strict=True)]
    for name in (RESULTS, OTHER):
        if (out / name).exists() and out.absolute() / name not in files:
            raise UserError(f"{out / name} exists. Add it to the files that are pooled, or choose another --output.")
    for content, path in zip(contents[1:], files[1:], strict=True):
        _check_fits(content, path, contents[0], files[0])
    seeds = sorted({run.seed for bench in benches for run in bench.runs})
    sizes = {key: contents[0]["data"][key] for key in _EQUAL_DATA if key != "version"}
    try:
        plan = Plan(methods, methods, make_settings(benches[0].split, benches[0].budget, seeds or None, **sizes), out)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{files[0]} has a split, budget or size that no benchmark has: {error!r}.") from error
    equal, other, repeats = _sorted(contents, benches, plan)
    told = f"{len(equal)} runs with the present settings: {out / RESULTS}"
    if other:  # written first: after a crash between the two, a run may be in both files, but in none never
        known = {m["name"]: m for content in reversed(contents) for m in content["methods"]}
        write_json(out / OTHER, _content(contents, other, {name: known[name] for name, _, _ in other}), indent=1)
        told += f"; {len(other)} with others: {out / OTHER}"
    write_json(out / RESULTS, _content(contents, equal, {name: describe(plan, name) for name in methods}), indent=1)
    if not other:
        (out / OTHER).unlink(missing_ok=True)  # one of the files, whose runs are all in the other now
    if repeats:
        told += f"; {len(repeats)} are there twice, with metrics that differ by at most {max(repeats):.2g} points"
    return told


def _sorted(contents: Sequence[Mapping], benches: Sequence[Bench], plan: Plan) -> tuple[_Found, _Found, list[float]]:
    """Runs with the plan's settings; all others; and by how much the metrics of each repeated run differ."""
    equal: _Found = {}
    other: _Found = {}
    repeats = []
    for content, bench in zip(contents, benches, strict=True):
        entries = [entry for entry in content["runs"] if bench.method(entry["method"])]
        for entry, run in zip(entries, bench.runs, strict=True):
            name = run.method.name
            present = name in plan.methods and plan.run(name, run.seed).hash == run.hash
            key, found = (name, run.seed, run.hash), equal if present else other
            if key not in found:
                found[key] = dict(entry), run
                continue
            repeats.append(_farthest(found[key][1], run))
            if not repeats[-1] and entry.get("classes") and not found[key][0].get("classes"):
                found[key][0]["classes"] = entry["classes"]
    return equal, other, repeats


def _check_fits(content: Mapping[str, Any], path: Path, first: Mapping[str, Any], first_path: Path) -> None:
    values = [(key, content.get(key), first.get(key)) for key in _EQUAL]
    values += [(key, content["data"][key], first["data"][key]) for key in _EQUAL_DATA]
    for seed, checksum in content["data"]["checksum"].items():
        values.append((f"checksum of seed {seed}", checksum, first["data"]["checksum"].get(seed, checksum)))
    for key, value, expected in values:
        if value != expected:
            raise UserError(f"{path} does not fit {first_path}: its {key} is {value}, not {expected}. Pool them apart.")


def _farthest(first: Run, second: Run) -> float:
    """The greatest difference of their reported metrics in points."""
    keys = [(task.key, metric) for task in TASKS for metric in task.metrics]
    pairs = [(first.results.get(task, {}).get(key), second.results.get(task, {}).get(key)) for task, key in keys]
    return max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)


def _content(contents: Sequence[Mapping], found: _Found, methods: Mapping[str, dict]) -> dict:
    """The content of a file with these runs. Machines that differ are all named."""
    order = list(methods)
    ranked = sorted(found, key=lambda key: (order.index(key[0]), key[1], key[2]))
    seeds = sorted({seed for _, seed, _ in ranked})
    data = dict(contents[0]["data"])
    for key in ("checksum", "folders"):
        joined = {s: value for content in reversed(contents) for s, value in content["data"][key].items()}
        data[key] = {str(seed): joined[str(seed)] for seed in seeds if str(seed) in joined}
    return {
        **{key: contents[0].get(key) for key in _EQUAL},
        "seeds": seeds,
        "data": data,
        "machine": {key: _joined(content["machine"][key] for content in contents) for key in MACHINE},
        "methods": list(methods.values()),
        "runs": [found[key][0] for key in ranked],
    }


def _joined(values: Iterable[object]) -> object:
    distinct = list(dict.fromkeys(values))
    return distinct[0] if len(distinct) == 1 else " / ".join(map(str, distinct))
