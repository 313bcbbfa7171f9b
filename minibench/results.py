"""Writes ``results.json``: the metrics of all finished runs, with data and machine."""

import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from minibench.bench import VERSION
from minibench.by_class import read_classes
from minibench.methods import SHOWN, Method
from minibench.plan import Plan
from minibench.runs import RECORD, Run, read_record
from minibench.scheduler import cores
from minibench.settings import Settings
from PADing.data.mini import VERSION as DATA_VERSION
from PADing.errors import UserError
from PADing.files import write_json


def write_results(out: Path, methods: Mapping[str, Method], settings: Settings) -> None:
    """Write the metrics of all finished runs in ``out`` with these settings to ``<out>/results.json``.

    This includes runs of earlier calls with other methods and seeds, if their hash is still the same.
    """
    import torch

    names = list(methods)
    plans = _plans(out, methods, settings)
    runs = sorted(_finished(plans), key=lambda run: (names.index(run.method.name), run.seed))
    seeds = sorted({run.seed for run in runs})
    folders = {str(seed): settings.data_folder(seed) for seed in seeds}
    checksums = {seed: read_record(out / folder / RECORD).get("checksum", "") for seed, folder in folders.items()}
    sizes = {key: getattr(settings, key) for key in ("train", "val", "size", "noise")}
    about = {"version": VERSION, "split": settings.split, "budget": settings.budget, "seeds": seeds}
    shown = {run.method.name for run in runs}
    content = {
        **about,
        "data": {"version": DATA_VERSION, "checksum": checksums, **sizes, "folders": folders},
        "machine": {
            "cpu": processor(),
            "cores": cores(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "methods": [describe(plan, name) for name, (plan, _) in plans.items() if name in shown],
        "runs": [_entry(run, out) for run in runs],
    }
    write_json(out / "results.json", content, indent=1)


def describe(plan: Plan, name: str) -> dict:
    """A method's entry in ``results.json``."""
    method = plan.methods[name]
    about = {key: getattr(method, key) for key in ("name", "title", "task", *SHOWN)}
    return about | {
        "iterations": plan.settings.iterations(method),
        "hyperparameters": plan.hyperparameters[name],
    }


def _entry(run: Run, out: Path) -> dict:
    about = {"method": run.method.name, "seed": run.seed, "hash": run.hash, "folder": str(run.folder.relative_to(out))}
    metrics = {"results": read_record(run.folder / "results.json"), "classes": read_classes(run.folder)}
    return {**about, "seconds": run.record()["seconds"], **metrics}


def _plans(out: Path, methods: Mapping[str, Method], settings: Settings) -> dict[str, tuple[Plan, set[int]]]:
    """Method -> its plan and the seeds of its finished runs, with these settings or others."""
    seeds: dict[str, set[int]] = {}
    for path in (out / "runs").glob(f"*/{RECORD}"):
        record = read_record(path)
        if record.get("state") == "done" and record.get("method") in methods:
            seeds.setdefault(record["method"], set()).add(record["seed"])
    plans = {}
    for name in methods:
        if name in seeds:
            with suppress(UserError):  # a method of an earlier call whose config is no longer valid
                plans[name] = Plan(methods, [name], settings, out), seeds[name]
    return plans


def _finished(plans: Mapping[str, tuple[Plan, set[int]]]) -> Iterator[Run]:
    for name, (plan, seeds) in plans.items():
        yield from (run for run in (plan.run(name, seed) for seed in seeds) if run.done and run.evaluated)


def processor() -> str:
    """The processor's name."""
    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:(.*)", path.read_text() if path.exists() else "", re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()
