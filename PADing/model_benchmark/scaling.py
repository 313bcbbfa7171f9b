"""Measures how training steps scale with the number of processes, and computes how they would on many GPUs."""

import argparse
import json
import logging
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PADing.commands.benchmark import CONTENDERS
from PADing.errors import UserError
from PADing.files import write_json
from PADing.model_benchmark.network import SHARE, rows

logger = logging.getLogger("benchmark")

WORKER = Path(__file__).with_name("scaling_worker.py")
REPOSITORY = Path(__file__).parents[2]
LIMIT = 3600.0  # seconds for one job
MIB = 2**20
Job = tuple[str, int, int]  # contender, processes, images of each


def benchmark_scaling(args: argparse.Namespace) -> None:
    """Measure, print tables in Markdown, and write all times if ``args.output`` names a new file."""
    if args.output:
        if args.output.exists():
            raise UserError(f"--output {args.output} exists already. Name another file, or delete it.")
        write_json(args.output, {"rows": []})  # finds out now whether it can be written
    found = [] if args.estimate else measured(args)
    if found:
        print(table(found))
        print()
        print(traffic_table(found))
        print()
    good = [row for row in found if "error" not in row]
    if good:
        size, calls = sent(good)
        step = args.step_seconds or min(statistics.median(row["seconds"]) for row in good)
        print(estimate_table(size, step, calls))
    elif args.estimate:
        size = gradient_size(args)
        print(estimate_table(size, args.step_seconds or 0.5, buckets(size)))
    else:
        raise UserError("Nothing was measured. The messages above say why.")


def measured(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each job of each round."""
    if args.device != "cpu":
        import torch

        if (present := torch.cuda.device_count()) < max(args.processes):
            raise UserError(f"--processes {max(args.processes)} needs as many GPUs, but this machine has {present}.")
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(1, args.rounds + 1):
            for job in jobs(args.contender or ["as-trained"], args.processes, args.images):
                contender, processes, images = job
                busy = {"load_before": round(os.getloadavg()[0], 2)} if hasattr(os, "getloadavg") else {}
                row = {**run(job, args, Path(folder)), "contender": contender, "processes": processes}
                found.append({**row, "images": images, "round": turn, **busy})
                state = row.get("error") or f"{statistics.median(row['seconds']):.2f} s"
                place = "round %d of %d, %s, %d process(es) with %d image(s) each: %s"
                logger.info(place, turn, args.rounds, contender, processes, images, state)
                if args.output:
                    write_json(args.output, {"threads": args.threads, "side": args.side, "rows": found}, indent=1)
    return found


def jobs(contenders: Sequence[str], processes: Sequence[int], images: int) -> list[Job]:
    """Each number of processes with ``images`` for each of them, and with those of the largest number shared evenly."""
    total = images * max(processes)
    found = [(c, p, images) for p in processes for c in contenders]
    found += [(c, p, total // p) for p in processes if total % p == 0 for c in contenders]
    return list(dict.fromkeys(found))


def run(job: Job, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The result of a job in fresh processes, or ``{"error": ...}``."""
    contender, processes, images = job
    request, result = folder / "request.json", folder / "result.json"
    result.unlink(missing_ok=True)
    own = CONTENDERS[contender]
    # The batch of the config may not be a multiple of these processes; each gets its images from the benchmark.
    opts = [*args.opts, *own.get("opts", ()), "SOLVER.IMS_PER_BATCH", processes * images]
    keys = {"config_file": str(args.config_file), "opts": opts, "device": args.device, "threads": args.threads}
    sizes = {"images": images, "side": args.side, "repeats": args.repeats, "ddp": own.get("ddp", {})}
    request.write_text(json.dumps({**keys, **sizes}), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": str(REPOSITORY)}
    common |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    if args.threads:
        common["OMP_NUM_THREADS"] = str(args.threads)
    logs = [(folder / f"log{rank}.txt").open("w+", encoding="utf-8") for rank in range(processes)]
    started = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(request), str(result)], stdout=log, stderr=log, cwd=REPOSITORY,
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank, log in enumerate(logs)
    ]  # fmt: skip
    try:
        failed = _first_failure(started)
    finally:
        for process in started:
            process.kill()
            process.wait()
    lines = []
    for log in logs:
        log.seek(0)
        lines.append(log.read().strip().splitlines() or ["no message"])
        log.close()
    if failed is not None or not result.is_file():
        return {"error": lines[failed or 0][-1][:300]}
    return json.loads(result.read_text(encoding="utf-8"))


def _first_failure(started: Sequence[subprocess.Popen]) -> int | None:
    """Wait for processes; the first one that fails or takes too long, or None."""
    end = time.monotonic() + LIMIT
    while any(process.poll() is None for process in started):
        for rank, process in enumerate(started):
            if process.poll():
                return rank
        if time.monotonic() > end:
            return 0
        time.sleep(0.05)
    return next((rank for rank, process in enumerate(started) if process.returncode), None)


# ---- tables


def table(found: Sequence[dict[str, Any]]) -> str:
    """Times, speedups and memory of each job, in Markdown."""
    columns = ["contender", "processes", "images each", "median s", "without communication", "CPU s"]
    columns += ["speedup, images each equal", "speedup, all images equal", "peak MiB", "optimizer MiB", "load"]
    lines = [f"| {' | '.join(columns)} |", f"|---|{'---:|' * (len(columns) - 1)}"]
    for job in dict.fromkeys(map(_job, found)):
        contender, processes, images = job
        mine = [row for row in found if _job(row) == job]
        good = [row for row in mine if "error" not in row]
        if not good:
            lines.append(f"| {contender} | {processes} | {images} | failed: {mine[-1]['error']} {'| ' * 8}|")
            continue
        cells = [f"{_median(good, key):.3f}" if good[0][key] else "-" for key in ("seconds", "silent_seconds")]
        cells += [f"{_median(good, 'cpu_seconds'):.3f}", speedup(found, job, images), ""]
        cells[-1] = speedup(found, job, images * processes)
        for key in ("peak", "state_bytes"):
            values = [row[key] for row in good if row[key] is not None]
            cells.append(f"{statistics.median(values) / MIB:.0f}" if values else "-")
        load = [row["load_before"] for row in good if "load_before" in row]
        cells.append(f"{statistics.median(load):.1f}" if load else "-")
        lines.append(f"| {contender} | {processes} | {images} | {' | '.join(cells)} |")
    return "\n".join(lines)


def speedup(found: Sequence[dict[str, Any]], job: Job, images: int) -> str:
    """Images per second of a job over those of one process with ``images``, by round: median (smallest to largest)."""
    contender, processes, each = job
    times = {(_job(row), row["round"]): statistics.median(row["seconds"]) for row in found if "error" not in row}
    ratios = [
        (processes * each / time) / (images / times[(contender, 1, images), turn])
        for (who, turn), time in times.items()
        if who == job and ((contender, 1, images), turn) in times
    ]
    if processes == 1 or not ratios:
        return "-"
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def traffic_table(found: Sequence[dict[str, Any]]) -> str:
    """What each process sends and waits for in a step, in Markdown."""
    lines = [
        "| contender | processes | what | calls | MiB | ms waited | share of the step |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for job in dict.fromkeys(map(_job, found)):
        good = [row for row in found if _job(row) == job and "error" not in row]
        for name in good[0]["traffic"] if good else ():
            parts = [row["traffic"][name] for row in good]
            cells = [f"{parts[0]['calls']:.0f}", f"{parts[0]['bytes'] / MIB:.3f}"]
            if parts[0]["seconds"] is None:
                cells += ["-", "-"]
            else:
                shares = [p["seconds"] / statistics.mean(r["seconds"]) for p, r in zip(parts, good, strict=True)]
                cells += [f"{1000 * statistics.median(p['seconds'] for p in parts):.1f}"]
                cells += [f"{100 * statistics.median(shares):.1f} %"]
            lines.append(f"| {job[0]} | {job[1]} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def estimate_table(size: float, step: float, calls: int) -> str:
    """The step of 8 and of 4 x 8 GPUs, computed from ``size`` bytes and ``step`` seconds of one GPU, in Markdown."""
    lines = [
        f"Computed, not measured: {size / MIB:.1f} MiB all-reduced in {calls} parts, a step of {step:.3f} s on one "
        f"GPU, {100 * SHARE:.0f} % of the published bandwidths.",
        "",
        "| GPUs | links | ms of communication | efficiency, nothing hidden | efficiency, hidden for a third of it |",
        "|---|---|---:|---:|---:|",
    ]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows(size, step, calls))])


def sent(good: Sequence[dict[str, Any]]) -> tuple[float, int]:
    """Bytes and calls of the gradients in a step: counted if there were several processes, else computed."""
    for row in good:
        if part := row["traffic"].get("gradients"):
            return part["bytes"], max(round(part["calls"]), 1)
    size = good[0]["gradient_bytes"]
    return size, buckets(size)


def buckets(size: float) -> int:
    """About how many all-reduces gradients of so many bytes take: the first of 1 MiB, the others of 25 MiB."""
    return 1 + max(round(size / (25 * MIB)), 1)


def gradient_size(args: argparse.Namespace) -> int:
    """Bytes of gradients in a step of the config's training."""
    from PADing.engine.recipes import build_recipe
    from PADing.engine.trainer import Trainer
    from PADing.model_benchmark.scaling_worker import config_of, gradient_bytes

    with tempfile.TemporaryDirectory() as folder:
        cfg = config_of(str(args.config_file), [*args.opts, "MODEL.DEVICE", "cpu"], Path(folder))
        model = Trainer.build_model(cfg)
    return gradient_bytes(model, build_recipe(cfg, model))


def _job(row: dict[str, Any]) -> Job:
    return row["contender"], row["processes"], row["images"]


def _median(good: Sequence[dict[str, Any]], key: str) -> float:
    return statistics.median(value for row in good for value in row[key])
