"""Rows: one file for each method, fold and second-stage seed; ``results.json`` collects them."""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minibench.folds.configs import VERSION, code_hash
from minibench.folds.form import RESULTS_VERSION, malformed_row
from minibench.folds.plan import SUPERVISED, Plan, Row
from minibench.folds.simple import SIMPLE
from minibench.methods import SHOWN
from minibench.results import processor
from minibench.runs import RECORD, read_record
from minibench.scheduler import cores
from PADing.engine.environment import commit
from PADing.errors import UserError
from PADing.files import read_json, write_json

__all__ = ["collect", "write_row"]

_TITLES = {SUPERVISED: "oracle: everything annotated"}


def write_row(plan: Plan, row: Row, scores: Mapping[str, Any], seconds: float) -> None:
    """Write the file of a row.

    Args:
        plan: has the row.
        scores: of ``minibench.folds.scores.Scorer``.
        seconds: processor time of its training and evaluation, without the segmenter's.
    """
    method, kind = plan.methods.get(row.name), plan.kind(row.name)
    task = plan.job(row.name, row.fold, kind) if kind in ("segmenter", "second", "whole") else None
    content = {
        "method": row.name,
        "fold": row.fold,
        "seed": row.seed,
        "world": plan.settings.world,
        "track": plan.settings.track,
        "hash": row.hash,
        "version": VERSION,
        "data": plan.data_hash(),
        "vectors": plan.vector_hash(),
        "config": task.hash if task else "",
        "code": code_hash(method, task.plugins) if method and task else "",
        "commit": commit() or "",
        "segmenter": plan.segmenter_hash(None) if kind == "supervised" else plan.start_hash(row.name, row.fold),
        "processor_seconds": round(seconds, 1),
        **scores,
    }
    write_json(row.file, content, indent=1)


def collect(plan: Plan) -> dict[str, Any]:
    """Write ``<out>/results.json``; returns its content.

    It has all finished rows with the plan's settings, also those of earlier calls with other methods, folds and seeds.
    """
    import torch

    settings, every = plan.settings, plan.every
    entries = [entry for path in (plan.out / "rows").glob("*.json") if (entry := _valid(every, path))]
    entries.sort(key=lambda entry: (every.names.index(entry["method"]), entry["fold"], entry["seed"]))
    names = list(dict.fromkeys(entry["method"] for entry in entries))
    content = {
        "version": RESULTS_VERSION,
        "recipe": VERSION,
        "world": settings.world,
        "track": settings.track,
        "budget": settings.budget,
        "folds": sorted({entry["fold"] for entry in entries}),
        "seeds": sorted({entry["seed"] for entry in entries if entry["seed"]}),
        "data": {"world": plan.data_hash(), "vectors": plan.vector_hash()},
        "machine": {
            "cpu": processor(),
            "cores": cores(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "trainings": _trainings(every, sorted({entry["fold"] for entry in entries})),
        "methods": [_about(plan, name) for name in names],
        "rows": entries,
    }
    write_json(plan.out / "results.json", content, indent=1)
    return content


def _about(plan: Plan, name: str) -> dict[str, Any]:
    kind = plan.kind(name)
    if name in plan.methods:
        method = plan.methods[name]
        about = {key: getattr(method, key) for key in ("name", "title", "task", *SHOWN)}
        return {**about, "kind": kind, "limit": False}
    title = SIMPLE[name].title if name in SIMPLE else _TITLES[name]
    limit = name == SUPERVISED or SIMPLE[name].limit
    role = "" if limit else "baseline"
    return {"name": name, "title": title, "task": "panoptic", "role": role, "kind": kind, "limit": limit}


def _valid(plan: Plan, path: Path) -> dict[str, Any] | None:
    """The content of a row's file; None if it belongs to other settings; UserError if it is damaged."""
    advice = f"{path} is damaged. Delete it and run the same command again."
    try:
        entry = read_json(path, "Row of the benchmark")
    except UserError as error:
        raise UserError(f"{advice} ({error})") from error
    try:
        row = plan.row(entry["method"], entry["fold"], entry["seed"])
    except (KeyError, TypeError, UserError):  # a method that is no longer there
        return None
    if row.name not in plan.names or row.hash != entry.get("hash"):
        return None
    if found := malformed_row(entry):
        raise UserError(f"{advice} ({found[0]})")
    return entry


def _trainings(plan: Plan, folds: Sequence[int]) -> list[dict[str, Any]]:
    """Seconds of the trainings that several rows share."""
    folders: list[Path] = [plan.backbone_folder(), plan.warm_folder(), plan.segmenter(None)]
    folders += [plan.segmenter(fold) for fold in folds]
    found = []
    for folder in folders:
        record = read_record(folder / RECORD)
        if record.get("state") == "done":
            numbers = {"seconds": record.get("seconds", 0.0), "threads": record.get("threads", 0)}
            found.append({"name": folder.name, **numbers})
    return found
