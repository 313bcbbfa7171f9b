"""``results.json``: the figures of all finished runs, and on what they were measured."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path

import torch

from minibench.methods import Method
from minibench.plan import Plan, Run
from minibench.runs import RECORD, read_record, write_record
from minibench.scheduler import cores
from minibench.settings import Settings
from PADing.data.mini import VERSION as DATA_VERSION
from PADing.errors import UserError

VERSION = 1


def write_results(out: Path, methods: Mapping[str, Method], settings: Settings) -> dict:
    """Collect what is finished in ``out`` under these settings into ``<out>/results.json``; returns its content.

    Runs of methods and seeds that were asked for in earlier calls count too, as long as what they depend on is
    unchanged: a folder holds one benchmark, which grows.
    """
    plans = _plans(out, methods, settings)
    runs = [run for plan, run in _finished(out, plans)]
    seeds = sorted({run.seed for run in runs})
    names = [name for name in methods if any(run.method.name == name for run in runs)]
    order = {name: i for i, name in enumerate(names)}
    runs.sort(key=lambda run: (order[run.method.name], run.seed))
    checksums = {
        str(seed): read_record(out / settings.data_folder(seed) / RECORD).get("checksum", "") for seed in seeds
    }
    content = {
        "version": VERSION,
        "split": settings.split,
        "budget": settings.budget,
        "seeds": seeds,
        "data": {
            "version": DATA_VERSION,
            "checksum": checksums,
            "train": settings.train,
            "val": settings.val,
            "size": settings.size,
            "noise": settings.noise,
            "folders": {str(seed): settings.data_folder(seed) for seed in seeds},
        },
        "machine": {
            "cpu": _cpu(),
            "cores": cores(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "methods": [
            {
                "name": method.name,
                "title": method.title,
                "task": method.task,
                "ablates": method.ablates,
                "removes": method.removes,
                "iterations": settings.iterations(method),
            }
            for method in map(methods.__getitem__, names)
        ],
        "runs": [_entry(out, run) for run in runs],
    }
    write_record(out / "results.json", content)
    return content


def _plans(out: Path, methods: Mapping[str, Method], settings: Settings) -> dict[str, Plan]:
    plans = {}
    started = {path.name.split("-seed")[0] for path in (out / "runs").glob("*-seed*")}
    for name in methods:
        if name in started:
            try:
                plans[name] = Plan(methods, [name], settings, out)
            except UserError:  # a method of another time, whose config no longer fits: nobody asked for it now
                continue
    return plans


def _finished(out: Path, plans: Mapping[str, Plan]):
    for name, plan in plans.items():
        method = next(m for m in plan.methods if m.name == name)
        for folder in sorted((out / "runs").glob(f"{name}-seed*")):
            record = read_record(folder / RECORD)
            if record.get("state") == "done" and (folder / "results.json").is_file():
                run = plan.run(method, record["seed"])
                if run.hash == record["hash"]:
                    yield plan, run


def _entry(out: Path, run: Run) -> dict:
    folder = out / run.folder
    return {
        "method": run.method.name,
        "seed": run.seed,
        "hash": run.hash,
        "folder": run.folder,
        "seconds": read_record(folder / RECORD)["seconds"],
        "results": read_record(folder / "results.json"),
    }


def _cpu() -> str:
    """The processor's name, as the system tells it."""
    path = "/proc/cpuinfo"
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
