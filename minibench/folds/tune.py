"""``python -m minibench tune --version 2``: tries the settings of ``grid.yaml`` on the world `tuning`.

Segmenters of its folds are trained as `minibench run` does, from the same warm start. Then every setting is trained on
their cached features. Writes ``tuning.md``, ``tuning.json`` and ``chosen.yaml``.
"""

import argparse
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from minibench.display import Display, duration
from minibench.folds.grid import DECIDES, SHOWN, TIE, best, means, read_grid, settings_of, trials_of
from minibench.folds.plan import Plan
from minibench.folds.settings import SETTINGS, make_settings, read_settings, write_settings
from minibench.folds.trials import IMAGES, Trials, write_trials
from minibench.methods import discover
from minibench.scheduler import cores, run_steps
from minibench.steps import Step
from PADing.engine.output_folder import training_folder, training_in
from PADing.errors import Interrupted, UserError
from PADing.files import replacing, write_json

__all__ = ["options_of", "run_trial_steps", "table", "trial_steps", "tune_version_2"]

FOLDS = (1, 2, 3)
HEAD = "# Written by `python -m minibench tune --version 2`, see docs/minibench_v2_causes.md. Not by hand.\n"


def tune_version_2(args: argparse.Namespace) -> int:
    """Run all that is not done, then write the tables; returns the exit status."""
    if args.out == Path("output", "minibench_tuning"):  # the default
        args.out = Path("output", "minibench2_tuning")
    folds = range(1, args.folds + 1) if args.folds is not None else args.fold_list
    seeds = range(1, args.seeds + 1) if args.seeds is not None else args.seed_list
    budget = args.budget or "standard"
    track, start = args.track or "clip", args.warm_start or ""
    settings = make_settings("tuning", track, budget, folds or FOLDS, seeds or (1,), start)
    methods, out, grid = discover(args.plugins), args.out.absolute(), read_grid(args.methods)
    reader = next(name for name in grid)
    plan = Plan(methods, [reader], settings, out)
    plan.threads = _threads(args.jobs)
    if training_in(out):
        raise UserError(f"Another benchmark is running in {out}. Wait for it, or choose another --output.")
    of_world = read_settings(out)[0].world if (out / SETTINGS).is_file() else "tuning"
    if (out / "results.json").is_file() or of_world != "tuning":
        raise UserError(f"{out} has results of `minibench run`. Choose another --output.")
    display = Display()
    with training_folder(out, resume=True, overwrite=False):
        # The steps' processes find methods and features by this file.
        write_settings(out, settings, methods=[reader], plugins=[str(path.absolute()) for path in args.plugins])
        write_trials(out, out, trials_of(grid), settings.seeds, args.images or IMAGES)
        trials = Trials(out)
        before = [step for step in plan.steps() if not step.name.endswith("-second")]
        steps = before + trial_steps(trials, settings.folds, tuple(step.name for step in before), plan.roots)
        failed = run_trial_steps(steps, args.jobs, display)
        rows = trials.rows(settings.folds)
        if not rows:
            display.line("No setting is finished, so nothing can be chosen.")
            return 1
        text = _write(out, trials, settings.folds, grid, rows)
    print(text)
    display.line(f"{out / 'tuning.md'}, {out / 'tuning.json'}; choice: {out / 'chosen.yaml'}")
    return int(failed)


def trial_steps(trials: Trials, folds: Sequence[int], needs: tuple[str, ...], roots: Path) -> list[Step]:
    """A step for each fold that runs its rows; a fold waits for those of ``needs`` that are its own or nobody's."""
    steps = []
    for fold in folds:
        own = tuple(name for name in needs if not name.startswith("fold") or name.startswith(f"fold{fold}-"))
        files, name = trials.files(fold), f"fold{fold}-trials"
        command = [sys.executable, "-m", "minibench.folds.trials", str(trials.out), "--fold", str(fold)]
        steps.append(
            Step(
                name,
                command,
                trials.out / "logs" / f"{name}.txt",
                lambda files=files: all(file.is_file() for file in files),  # type: ignore[misc]
                needs=own,
                env={"DETECTRON2_DATASETS": str(roots)},
                usual=15.0 * len(files),
                kind="trials",
            )
        )
    return steps


def _threads(jobs: int) -> int:
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores() // jobs, int(wanted) if wanted.isdigit() else cores()))


def run_trial_steps(steps: Sequence[Step], jobs: int, display: Display) -> bool:
    """Run steps and explain failures; whether there were any."""
    done = sum(step.done() for step in steps)
    display.line(f"{len(steps)} steps, {done} done before; {jobs} in parallel")
    try:
        failures = run_steps(steps, jobs, display)
    except Interrupted:
        display.line("Stopped. Run the same command again to continue.")
        raise
    for failure in failures:
        display.line(f"\n{failure.step.name} failed (exit status {failure.status}): {failure.error}")
        display.line(f"  log: {failure.step.log}. Fix the cause, then run the same command again for the rest.")
    return bool(failures)


def _write(
    out: Path, trials: Trials, folds: Sequence[int], grid: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> str:
    content: dict[str, Any] = {**trials.about, "track": trials.settings.track, "folds": list(folds), "tie": TIE}
    seconds = sum(row["processor_seconds"] for row in rows)
    content |= {"processor_seconds": round(seconds, 1), "methods": {}}
    for name, (keys, settings) in grid.items():
        own = [_kept(row) for row in rows if row["method"] == name]
        content["methods"][name] = {"keys": keys, "settings": settings, "rows": own, "chosen": best(own, name)}
    write_json(out / "tuning.json", content, indent=1)
    text = table(content)
    with replacing(out / "tuning.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    with replacing(out / "chosen.yaml") as temporary:
        temporary.write_text(HEAD + yaml.safe_dump(options_of(content), sort_keys=False), encoding="utf-8")
    return text + f"\n{duration(seconds)} of processor time for all rows."


def _kept(row: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: row[key] for key in ("trial", "method", "fold", "seed")}
    if "metrics" not in row:
        return {**found, "diverged": row["diverged"]}
    return {**found, "metrics": {key: round(row["metrics"][key], 3) for key in SHOWN if key in row["metrics"]}}


def options_of(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Method -> chosen config keys and values, of the content of ``tuning.json``."""
    found = {}
    for name, entry in content["methods"].items():
        if chosen := best(entry["rows"], name):
            setting = entry["settings"][int(chosen.rpartition(".")[2]) - 1]
            found[name] = dict(zip(entry["keys"], setting, strict=True))
    return found


def table(content: Mapping[str, Any]) -> str:
    """The tables in Markdown; ``content``: that of ``tuning.json``."""
    folds, seeds = (", ".join(map(str, content[key])) for key in ("folds", "seeds"))
    parts = [
        "# Hyperparameters tried on the world tuning",
        f"Track {content['track']}, folds {folds}, second-stage seeds {seeds}, budget {content['budget']}; "
        f"{content['images']} validation images. Means over folds and seeds. † is chosen: among all settings whose "
        f"{DECIDES[0]} is within {100 * content['tie']:.0f} % of the best, the one with the highest {DECIDES[1]}.",
    ]
    for name, entry in content["methods"].items():
        by_trial, chosen = settings_of(entry["rows"], name), best(entry["rows"], name)
        lines = [[*(key.rpartition(".")[2] for key in entry["keys"]), *(key.replace("_", " ") for key in SHOWN)]]
        lines.append(["---"] * len(lines[0]))
        for number, setting in enumerate(entry["settings"], start=1):
            rows = by_trial.get(f"{name}.{number}", [])
            found = means(rows) if rows else None
            missing = "not finished" if not rows else "diverged"
            cells = [_cell(found[key]) if found else missing for key in SHOWN]
            mark = " †" if chosen == f"{name}.{number}" else ""
            lines.append([*(f"{value:g}" for value in setting), cells[0] + mark, *cells[1:]])
        parts += [f"## {name}", "\n".join("| " + " | ".join(line) + " |" for line in lines)]
    return "\n\n".join(parts) + "\n"


def _cell(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"
