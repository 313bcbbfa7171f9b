"""Runs the steps one after the other, each in a process that can be stopped, and writes the report after each."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PADing.errors import UserError
from PADing.files import REPOSITORY, explain_os_error, read_json, write_json
from PADing.gpu_check.packages import environment
from PADing.gpu_check.plan import Step, data_step, plan
from PADing.gpu_check.report import markdown

GRACE = 5.0  # seconds to end after SIGTERM
WORDS = 2000  # characters of a failed step's output in the report


def run_all(out: Path, names: Sequence[str], seconds: float, wheels: Path | None, cpu: bool, overwrite: bool) -> bool:
    """Run the steps until the time is over; returns whether one failed. Results are in ``out``, also after Ctrl-C.

    Raises:
        UserError: packages are missing, or the folder is of something else.
    """
    begin, out = time.monotonic(), out.absolute()
    _open(out, overwrite)
    variables = environment(wheels, out / "packages") | {"DETECTRON2_DATASETS": str(out / "data")}
    machine = _machine(variables)
    gpu = bool(machine["gpus"]) and not cpu
    report: dict[str, Any] = {"machine": machine, "device": "cuda" if gpu else "cpu", "steps": {}}
    report["limit_seconds"] = seconds
    if not gpu:
        print("No GPU is used: the steps run at a tiny size on the CPU, which says nothing about a GPU.")
    for step in [data_step(out, gpu), *plan(names, out, gpu)]:
        left = seconds - (time.monotonic() - begin)
        row = {"status": "not run", "reason": "no time was left"} if left < 1 else _run(step, variables, out, left)
        report["steps"][step.name] = row
        write_json(out / "gpu_check.json", report, indent=2)
        _write(out / "gpu_check.md", markdown(report))
        print(f"{step.name:12} {row['status']:8} {row.get('seconds', 0):6.1f} s  {row.get('reason', '')}", flush=True)
    print(f"Wrote {out / 'gpu_check.md'} and gpu_check.json.")
    return any(row["status"] in ("failed", "stopped") for row in report["steps"].values())


def _open(out: Path, overwrite: bool) -> None:
    """Make the folder, or empty it of an earlier check if asked to; UserError if something else is in it."""
    try:
        if out.exists() and any(out.iterdir()):
            if not (out / "gpu_check.json").is_file():
                raise UserError(f"--output {out} has other files. Name a new folder.")
            if not overwrite:
                raise UserError(
                    f"--output {out} has the results of an earlier check. Name a new folder, or --overwrite."
                )
            shutil.rmtree(out)
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "gpu_check.json", {})  # marks the folder
    except OSError as error:
        raise UserError(f"--output: {explain_os_error(out, error)}") from error


def _machine(variables: dict[str, str]) -> dict[str, Any]:
    """Versions and devices, asked for in another process, so that a broken driver cannot end this one."""
    code = """
import json, os, platform, sys, torch
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
print(json.dumps({"gpus": gpus, "torch": torch.__version__, "cuda": torch.version.cuda, "cpus": os.cpu_count(),
    "python": platform.python_version(), "capability": list(torch.cuda.get_device_capability()) if gpus else None}))
"""
    result = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    if result.returncode:
        raise UserError(f"PyTorch does not start: {result.stderr.strip()[-500:]}")
    return {**json.loads(result.stdout.splitlines()[-1]), "load": list(os.getloadavg())}


def _run(step: Step, variables: dict[str, str], out: Path, left: float) -> dict[str, Any]:
    if step.reason:
        return {"status": "skipped", "reason": step.reason}
    limit, start = min(step.limit, left), time.monotonic()
    log = out / f"{step.name}.log"
    with open(log, "wb") as file:
        process = subprocess.Popen(
            step.words(), cwd=REPOSITORY, env=variables, stdin=subprocess.DEVNULL, stdout=file,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            status: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
    row: dict[str, Any] = {"status": "ok", "seconds": round(time.monotonic() - start, 1)}
    if status is None:
        row |= {"status": "stopped", "reason": f"after {limit:.0f} s"}
    elif status:
        row |= {"status": "failed", "reason": f"exit status {status}, see {log.name}", "output": _end_of(log)}
    if step.result.is_file():
        with contextlib.suppress(UserError):
            row["result"] = read_json(step.result, "Result", kind=object)
    elif row["status"] == "ok":
        row |= {"status": "failed", "reason": "it wrote no result", "output": _end_of(log)}
    return row


def _end(process: subprocess.Popen) -> None:
    """End a process and those that it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
            return


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-WORDS:]


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(explain_os_error(path, error)) from error
