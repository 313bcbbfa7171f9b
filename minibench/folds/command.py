"""``python -m minibench run --version 2``, and the warm start alone."""

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

from minibench.display import Display, duration
from minibench.folds.cause_report import cause_report
from minibench.folds.causes import all_rows, read_causes, verdicts
from minibench.folds.form import read_causes_results, read_results
from minibench.folds.plan import Plan
from minibench.folds.report import report
from minibench.folds.rows import collect
from minibench.folds.settings import SETTINGS, Settings, make_settings, read_settings, write_settings
from minibench.methods import discover
from minibench.scheduler import Failure, cores, run_steps
from PADing.engine.output_folder import training_folder, training_in
from PADing.errors import Interrupted, UserError
from PADing.files import read_json, replacing

__all__ = ["report_version_2", "run_version_2", "train_warm_start"]

REPORT, WARM, CAUSES = "report.md", "warm_start.pth", "causes.json"


def run_version_2(args: argparse.Namespace) -> int:
    """Run all steps that are not done, then write results and report; returns the exit status."""
    if args.out == Path("output", "minibench"):  # the default
        args.out = Path("output", "minibench2")
    settings = make_settings(
        args.world or "test",
        args.track or "clip",
        args.budget or "standard",
        args.fold_list if args.folds is None else range(1, args.folds + 1),
        args.seed_list if args.seeds is None else range(1, args.seeds + 1),
        args.warm_start or "",
    )
    return _run(args, settings)


def train_warm_start(args: argparse.Namespace) -> int:
    """Train the warm start alone; returns the exit status."""
    return _run(args, make_settings(budget=args.budget or "standard"), warm_only=True)


def report_version_2(out: Path, to: Path | None = None) -> str:
    """Write the report of a folder's results.json; returns its text.

    If the folder has a causes.json, too, its report is written again as causes.md, with the rows of results.json.
    """
    results, causes = read_results(out / "results.json"), None
    pages = {}
    if (out / CAUSES).is_file():
        causes = read_causes_results(out / CAUSES)
        experiments = read_causes()
        rows = all_rows(experiments, causes, results)
        pages["causes.md"] = cause_report(experiments, verdicts(experiments, rows), rows, causes)
    text = pages[REPORT] = report(results, causes)
    folder = out if to is None else to
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in pages.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(page, encoding="utf-8")
    return text


def _run(args: argparse.Namespace, settings: Settings, warm_only: bool = False) -> int:
    out, methods = args.out.absolute(), discover(args.plugins)
    plan = Plan(methods, None if warm_only else args.methods, settings, out)
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    plan.threads = max(1, min(cores() // args.jobs, int(wanted) if wanted.isdigit() else cores()))
    if training_in(out):
        raise UserError(f"Another benchmark is running in {out}. Wait for it, or choose another --output.")
    _check_folder(out, settings, warm_only)
    display, steps = Display(), plan.steps(lambda: collect(plan), warm_only)
    with training_folder(out, resume=True, overwrite=False):
        plugins = [str(path.absolute()) for path in args.plugins]
        if not warm_only or not (out / SETTINGS).is_file():  # those of a benchmark name its methods and plug-ins
            write_settings(out, settings, methods=plan.names, plugins=plugins)
        done = sum(step.done() for step in steps)
        display.line(f"{len(steps)} steps in {out}, {done} done before; {args.jobs} in parallel")
        try:
            failures = run_steps(steps, args.jobs, display)
        except Interrupted:
            display.line("Stopped. Run the same command again to continue.")
            raise
        if not warm_only:
            collect(plan)
    for failure in failures:
        _explain(failure, display)
    if warm_only:
        if not failures:
            with replacing(out / WARM) as temporary:
                shutil.copyfile(plan.warm_weights(), temporary)
            display.line(f"Warm start: {out / WARM}")
    elif (out / "results.json").is_file():
        text = report_version_2(out)
        print(text)
        spent = sum(filter(None, (step.measured() for step in steps)))
        display.line(f"{duration(spent)} of training; results: {out / 'results.json'}; report: {out / REPORT}")
    return int(bool(failures))


def _check_folder(out: Path, settings: Settings, warm_only: bool) -> None:
    """UserError if the folder has what would be replaced: results of version 1, or of other settings."""
    found = out / "results.json"
    if found.is_file() and not (out / SETTINGS).is_file():
        raise UserError(f"{out} has results of version 1. Choose another --output.")
    before: dict[str, Any] = {}
    if found.is_file() and not warm_only:
        before = read_json(found, "Results of the mini benchmark")
    elif (out / SETTINGS).is_file() and warm_only:
        before = {"budget": read_settings(out)[0].budget}
    for key in ("world", "track", "budget"):
        wanted = getattr(settings, key)
        if (own := before.get(key, wanted)) != wanted:
            what = f"{out} has a benchmark with --{key} {own}, which one with {wanted} would replace"
            raise UserError(f"{what}. Choose another --output.")


def _explain(failure: Failure, display: Display) -> None:
    display.line(f"\n{failure.step.name} failed (exit status {failure.status}): {failure.error}")
    display.line(f"  log: {failure.step.log}. Fix the cause, then run the same command again for the rest.")
