"""``distractors.json``: the metrics of a benchmark's runs by number of distractors (``minibench.distractors``).

The file holds a list ``runs`` with an entry for each run: ``method``, ``title``, ``seed``, ``hash`` (of the run),
``images`` (0: the whole validation set) and ``numbers``, which maps a number of distractors to task -> metric ->
percent. Its methods need not be those of ``results.json``.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from minibench.bench import Bench, read_bench
from minibench.distractors import TABLE, evaluate_with_distractors
from minibench.methods import TASKS
from minibench.runs import Run
from PADing.errors import UserError
from PADing.files import read_json, write_json

VERSION = 1


def read_distractors(folder: Path) -> list[dict[str, Any]]:
    """The entries of ``<folder>/distractors.json``; none without the file. UserError when it is damaged."""
    path = folder / TABLE
    if not path.is_file():
        return []
    content = read_json(path, "Metrics with distractors")
    try:
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']} instead of {VERSION}")
        for entry in content["runs"]:
            str(entry["method"]), str(entry["title"]), int(entry["seed"]), int(entry["images"])
            for number, metrics in entry["numbers"].items():
                int(number), [float(value) for values in metrics.values() for value in values.values()]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} is not what `python -m minibench distractors` writes: {error!r}. Delete it."
        ) from error
    return list(content["runs"])


def write_distractors(folder: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Write ``<folder>/distractors.json``, sorted by seed within each method; methods keep their order."""
    entries = list(entries)
    order = list(dict.fromkeys(entry["method"] for entry in entries))
    ranked = sorted(entries, key=lambda e: (order.index(e["method"]), e["seed"]))
    write_json(folder / TABLE, {"version": VERSION, "runs": ranked}, indent=1)


def evaluate_runs(
    out: Path, names: Sequence[str] | None, numbers: Sequence[int], images: int, overwrite: bool
) -> Iterator[str]:
    """Evaluate a benchmark's finished runs with distractors; yields a sentence after each.

    Args:
        out: its output folder. names: of methods; None: the main methods and the baselines.
        numbers: of distractors. images: of the validation set, the first ones; 0: all.
        overwrite: evaluate runs again that are in the file with these numbers and images.

    Raises:
        UserError: an unknown method, a damaged file, or a method whose model takes no vocabulary.
    """
    bench = read_bench(out)
    known = {method.name for method in bench.methods}
    if unknown := [name for name in names or () if name not in known]:
        raise UserError(f"{out} has no runs of {', '.join(unknown)}. It has those of {', '.join(sorted(known))}.")
    wanted = list(names or (method.name for method in bench.with_role("main", "baseline")))
    runs = [run for name in wanted for run in bench.runs_of(name)]
    for run in runs if names else filter(_takes_names, runs):
        entries = read_distractors(out)
        old = next((e for e in entries if (e["method"], e["seed"]) == (run.method.name, run.seed)), None)
        done: Mapping[str, Mapping] = {}
        if old is not None and (old["hash"], old["images"]) == (run.hash, images) and not overwrite:
            done = old["numbers"]
        if missing := [number for number in numbers if str(number) not in done]:
            found = {**done, **_evaluate(bench, run, missing, images)}
            ordered = {number: found[number] for number in sorted(found, key=int)}
            about = {"method": run.method.name, "title": run.method.title, "seed": run.seed, "hash": run.hash}
            entry = {**about, "images": images, "numbers": ordered}
            write_distractors(out, [*(e for e in entries if e is not old), entry])
        yield f"{run.name}: {', '.join(map(str, numbers))} distractors{'' if missing else ' (done before)'}"


def _takes_names(run: Run) -> bool:
    """Whether a run's model can take further names."""
    from PADing.config import load_config
    from PADing.meta_arch.contract import architecture_of, takes_vocabulary

    return takes_vocabulary(architecture_of(load_config(run.folder / "config.yaml")))


def _evaluate(bench: Bench, run: Run, numbers: Sequence[int], images: int) -> dict[str, dict]:
    """Number of distractors -> task -> metric -> percent."""
    found: dict[str, Mapping] = {}
    if 0 in numbers and not images:
        found["0"] = run.results  # the same evaluation as that of the training's end
    if left := [number for number in numbers if str(number) not in found]:
        data = bench.folder / bench.data["folders"][str(run.seed)]
        found |= evaluate_with_distractors(run.folder, data, left, images)
    return {
        number: {t.key: {m: metrics[t.key][m] for m in t.metrics} for t in TASKS if t.key in metrics}
        for number, metrics in found.items()
    }
