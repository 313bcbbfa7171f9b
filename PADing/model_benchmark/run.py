"""Runs the tasks of the model benchmark: contenders take turns, each time in a fresh process. Prints tables."""

import argparse
import json
import logging
import math
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PADing import waiting
from PADing.commands.benchmark import DATA_TASKS, MODEL_TASKS
from PADing.errors import UserError
from PADing.files import read_json, write_json

logger = logging.getLogger("benchmark")

WORKLOAD = Path(__file__).with_name("workload.py")
REPOSITORY = Path(__file__).parents[2]
OURS = "this"
# Task -> name of a peer, and the task of the workload that runs it.
PEERS = {"network": {"transformers": "transformers-network"}}
LIMIT = 3600.0  # seconds for one process


class Contender:
    """A program that runs tasks: ``command`` is called with the arguments of the workload.

    Args:
        name: in the table.
        command: words before the arguments.
        further: environment variables.
    """

    def __init__(self, name: str, command: Sequence[str], further: dict[str, str] | None = None):
        self.name, self.command, self.further = name, list(command), further or {}

    def run(self, task: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
        """One process: its result, or ``{"error": ...}``."""
        output = folder / "result.json"
        output.unlink(missing_ok=True)
        words = [*self.command, "--task", task, "--output", str(output), "--height", str(args.height)]
        words += ["--width", str(args.width), "--repeats", str(args.repeats), "--threads", str(args.threads)]
        words += ["--dtype", args.dtype]
        # Each program chooses how its threads wait: this one's choice is not that of others.
        inherited = {name: value for name, value in os.environ.items() if waiting.chosen.get(name) != value}
        environment = {**inherited, "OMP_NUM_THREADS": str(args.threads), **self.further}
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, env=environment)
        except OSError as error:
            return {"error": f"{words[0]}: {error.strerror}"}
        except subprocess.TimeoutExpired:
            return {"error": f"no result after {LIMIT:.0f} s"}
        if done.returncode or not output.is_file():
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}, and no result"]
            return {"error": lines[-1][:300]}
        return checked(output, self.name)


def checked(path: Path, name: str) -> dict[str, Any]:
    """A result as ``docs/benchmarks.md`` describes it, or ``{"error": ...}``."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        seconds = [float(value) for value in found["seconds"]]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        return {"error": f"{path.name} of {name} is no result: {type(error).__name__} {error}"}
    if not seconds or not all(math.isfinite(value) and value > 0 for value in seconds):
        return {"error": f"{path.name} of {name} has no positive times"}
    return {**found, "seconds": seconds}


def contenders(args: argparse.Namespace) -> list[Contender]:
    """This checkout, older checkouts and other programs, as the command line names them; UserError for mistakes."""
    own = [sys.executable, str(WORKLOAD), *_of_data(args), "--root"]
    further = ["--compile"] if args.compile else []
    found = [Contender(OURS, [*own, str(REPOSITORY), *further], {"PYTHONPATH": str(REPOSITORY)})]
    for folder in args.checkout:
        if not (folder / "PADing" / "__init__.py").is_file():
            raise UserError(f"--checkout {folder} is no checkout of this project: it has no PADing/__init__.py.")
        place = str(folder.resolve())
        paths = os.pathsep.join([place, f"{place}/d2lite/src", f"{place}/d2lite/src/d2lite/standin"])
        found.append(Contender(folder.name or place, [*own, place], {"PYTHONPATH": paths}))
    for text in args.beside:
        name, _, command = text.partition("=")
        if not name.strip() or not command.strip():
            raise UserError(f'--beside is {text!r}, but must be NAME=COMMAND, such as published="python published.py".')
        found.append(Contender(name.strip(), shlex.split(command)))
    names = [contender.name for contender in found]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"Several contenders are called {', '.join(doubled)}. Give them different names.")
    return found


def _of_data(args: argparse.Namespace) -> list[str]:
    """Arguments of the data benchmark; none for the others."""
    if "objects" not in args:
        return []
    tasks = args.task or DATA_TASKS
    if args.coco and not {*tasks} <= {"load-instance", "load-panoptic"}:
        raise UserError("--coco is for two tasks alone: choose --task load-instance, --task load-panoptic, or both.")
    for kind in ("instances" if task == "load-instance" else "panoptic" for task in tasks if args.coco):
        if not (args.coco / "annotations" / f"{kind}_val2017.json").is_file():
            raise UserError(f"--coco {args.coco} has no annotations/{kind}_val2017.json, or is no folder.")
    return ["--objects", str(args.objects), *(["--coco", str(args.coco)] if args.coco else [])]


def joined(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Rows of other runs' files, which count as round 0; UserError for files of another kind."""
    rows: list[dict[str, Any]] = []
    for path in paths:
        content = read_json(path, "Benchmark result")
        known = content.get("rows") if isinstance(content, dict) else None
        if not isinstance(known, list) or not all(
            isinstance(r, dict) and {"task", "contender"} <= r.keys() for r in known
        ):
            raise UserError(
                f'{path} is no result of this benchmark: it needs {{"rows": [{{"task", "contender", ...}}]}}.'
            )
        rows += [{**row, "contender": f"{row['contender']} ({path.name})", "round": 0} for row in known]
    return rows


def benchmark_model(args: argparse.Namespace) -> None:
    """Measure, print tables in Markdown, and write all times if ``args.output`` names a new file."""
    args.threads = args.threads or _cores()
    names = DATA_TASKS if "objects" in args else MODEL_TASKS
    if args.output:
        if args.output.exists():
            raise UserError(f"--output {args.output} exists already. Name another file, or delete it.")
        write_json(args.output, {"rows": []})  # finds out now whether it can be written
    everyone, tasks = contenders(args), args.task or list(names)
    rows = joined(args.join)
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(1, args.rounds + 1):
            for task in tasks:
                runs = [(contender.name, contender, task) for contender in everyone]
                runs += [(name, everyone[0], other) for name, other in PEERS.get(task, {}).items()]
                runs = runs[:1] if task == "floor" else runs
                # In reverse every second time, because the first place in a round may be a good or a bad one.
                for name, contender, work in runs if turn % 2 else runs[::-1]:
                    busy = {"load_before": round(os.getloadavg()[0], 2)} if hasattr(os, "getloadavg") else {}
                    result = contender.run(work, args, Path(folder))
                    rows.append({**result, "task": task, "contender": name, "round": turn, **busy})
                    state = result.get("error") or f"{_shown(statistics.median(result['seconds']))} s"
                    logger.info("round %d of %d, %s, %s: %s", turn, args.rounds, task, name, state)
                    if args.output:
                        write_json(args.output, {"threads": args.threads, "dtype": args.dtype, "rows": rows}, indent=1)
    print(table(rows, args))
    if all("error" in row for row in rows):
        raise UserError("Nothing was measured. The messages above say why.")


def table(rows: Sequence[dict[str, Any]], args: argparse.Namespace) -> str:
    """The tables in Markdown: times and ratios by task, then stages."""
    lines = [
        f"{args.threads} threads, {args.dtype}, images of {args.height} x {args.width}; "
        f"each process: 1 + {args.repeats} calls",
        "",
    ]
    lines += ["| task | contender | median s | fastest s | CPU s | time / this (range over rounds) | peak MiB | load |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|---:|"]
    stages: list[str] = []
    for task, name in dict.fromkeys((row["task"], row["contender"]) for row in rows):
        mine = [row for row in rows if (row["task"], row["contender"]) == (task, name)]
        good = [row for row in mine if "error" not in row]
        if not good:
            lines.append(f"| {task} | {name} | failed: {mine[-1]['error']} | | | | | |")
            continue
        seconds = [value for row in good for value in row["seconds"]]
        cpu = [value for row in good for value in row.get("cpu_seconds", ())]
        peaks = [row["peak_mb"] for row in good if row.get("peak_mb") is not None]
        load = [row["load_before"] for row in good if "load_before" in row]
        cells = [
            _shown(statistics.median(seconds)),
            _shown(min(seconds)),
            _shown(statistics.median(cpu)) if cpu else "-",
            ratio(rows, task, name),
        ]
        lines.append(f"| {task} | {name} | {' | '.join(cells)} | {_median(peaks, '.0f')} | {_median(load, '.1f')} |")
        parts = {
            part: [row["stages"][part] for row in good if part in row.get("stages", {})]
            for part in good[0].get("stages", {})
        }
        stages += [f"| {task} | {name} | {part} | {_median(values, '.3f')} |" for part, values in parts.items()]
    if stages:
        lines += ["", "| task | contender | stage | median s |", "|---|---|---|---:|", *stages]
    return "\n".join(lines)


def ratio(rows: Sequence[dict[str, Any]], task: str, name: str) -> str:
    """The median time of a contender over that of this checkout, round by round: median (smallest to largest)."""
    times: dict[tuple[str, int], float] = {
        (row["contender"], row["round"]): statistics.median(row["seconds"])
        for row in rows
        if row["task"] == task and "error" not in row
    }
    found = [time / times[OURS, turn] for (who, turn), time in times.items() if who == name and (OURS, turn) in times]
    if name == OURS or not found:
        return "1" if name == OURS else "-"
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def _cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shown(seconds: float) -> str:
    return f"{seconds:.3f}" if seconds >= 0.1 else f"{seconds:.4f}"


def _median(values: Sequence[float], form: str) -> str:
    return format(statistics.median(values), form) if values else "-"
