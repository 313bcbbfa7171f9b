"""``python -m minibench causes RUN``: runs the cause experiments on the cached features of a benchmark.

It only reads RUN, so it may run while the benchmark goes on; call it again when there are more folds.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minibench.display import Display, duration
from minibench.folds.cause_report import cause_report
from minibench.folds.causes import file_hash, read_causes, rows_of_run, trials_of, verdicts
from minibench.folds.chosen import chosen_for
from minibench.folds.form import read_results
from minibench.folds.settings import MOST_SEED, SETTINGS, check_numbers, read_settings
from minibench.folds.trials import IMAGES, Trials, write_trials
from minibench.folds.tune import run_trial_steps, trial_steps
from minibench.methods import discover
from PADing.engine.output_folder import training_folder, training_in
from PADing.errors import UserError
from PADing.files import replacing, write_json

__all__ = ["run_causes"]


def run_causes(args: argparse.Namespace) -> int:
    """Run all rows that are not done, then write ``causes.md`` and ``causes.json``; returns the exit status."""
    run, out, experiments = args.run.absolute(), args.out.absolute(), read_causes(args.experiments)
    if not (run / SETTINGS).is_file():
        raise UserError(f"{run} has no benchmark of version 2. Make one: python -m minibench run --version 2")
    if run.resolve() == out.resolve():
        raise UserError(f"--output {out} is the benchmark itself, which is only read. Name another folder.")
    if (out / SETTINGS).is_file() or (out / "results.json").is_file():
        raise UserError(f"--output {out} has a benchmark of its own. Name another folder.")
    if training_in(out):
        raise UserError(f"Another benchmark is running in {out}. Wait for it, or choose another --output.")
    settings, more = read_settings(run)
    check_numbers("Seeds", args.seed_list or settings.seeds, MOST_SEED)
    methods = discover([Path(path) for path in more.get("plugins", ())])
    needed = trials_of(experiments, lambda name: chosen_for(methods[name]) if name in methods else {})
    display = Display()
    with training_folder(out, resume=True, overwrite=False):
        write_trials(out, run, needed, tuple(dict.fromkeys(args.seed_list or settings.seeds)), args.images or IMAGES)
        trials = Trials(out)
        folds = _folds(trials, args.fold_list)
        failed = run_trial_steps(trial_steps(trials, folds, (), trials.plan.roots), args.jobs, display)
        rows = trials.rows(folds)
        seconds = sum(row["processor_seconds"] for row in {row["file"]: row for row in rows}.values())
        if (run / "results.json").is_file():
            rows += rows_of_run(experiments, read_results(run / "results.json"))
        judged = verdicts(experiments, rows)
        about: dict[str, Any] = {**trials.about, "folds": list(folds), "declared": file_hash()}
        about["chosen"] = {trial.method: dict(chosen_for(methods[trial.method])) for trial in needed}
        about["chosen"] = {name: options for name, options in about["chosen"].items() if options}
        write_json(out / "causes.json", {**about, "processor_seconds": round(seconds, 1), "rows": rows}, indent=1)
        text = cause_report(experiments, judged, rows, about)
        with replacing(out / "causes.md") as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(text)
    display.line(f"{duration(seconds)} of processor time; {out / 'causes.md'}, {out / 'causes.json'}")
    return int(failed)


def _folds(trials: Trials, wanted: Sequence[int] | None) -> tuple[int, ...]:
    """The folds to run; UserError if they have no features."""
    there = trials.folds()
    if wanted is None and there:
        return there
    missing = [fold for fold in wanted or trials.settings.folds if fold not in there]
    if missing:
        known = f" It has them of {', '.join(map(str, there))}." if there else ""
        names = ", ".join(map(str, missing))
        raise UserError(f"{trials.run} has no features of the folds {names} yet.{known} Let `minibench run` make them.")
    return tuple(dict.fromkeys(wanted or ()))
