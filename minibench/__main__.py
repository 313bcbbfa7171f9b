"""The mini benchmark: trains all methods on the mini data set, from one shared pretraining per seed.

    python -m minibench run                                # all methods, three seeds; two cores: within 4 h
    python -m minibench run --budget quick                 # one seed, within half an hour
    python -m minibench run --methods pading,gmmn --seed-list 4
    python -m minibench run --plugins examples             # with your own methods, see docs/add_a_method.md
    python -m minibench run --version 2                    # folds of unseen classes, see docs/minibench_v2.md
    python -m minibench warm-start                         # what all segmenters of version 2 start from
    python -m minibench verify output/minibench2/results.json    # do metrics of version 2 follow from their details?
    python -m minibench tune --methods pading,gmmn         # try their hyperparameters on the tuning split
    python -m minibench tune --version 2                   # the same on folds of the world `tuning`
    python -m minibench causes output/minibench2           # experiments on why methods do what they do
    python -m minibench list
    python -m minibench report --output output/minibench
    python -m minibench pool FIRST.json SECOND.json        # join the seeds of several runs in one results.json
    python -m minibench quickstart                         # the smallest run: PADing and its pretraining, one table
    python -m minibench distractors OUTPUT                 # what names cost that no image shows
    python -m minibench toy-clip                           # train a small CLIP on the mini data set's pictures
    python -m minibench packaged-model                     # train the mini model that is part of the package

Run the same command again to continue: finished runs are kept, and interrupted ones resume from their last checkpoint.
To repeat a run, delete its folder in OUTPUT/runs.
"""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from minibench import distractors, packaged, quickstart
from minibench.display import Display, duration
from minibench.folds.settings import BUDGETS as BUDGETS_2
from minibench.folds.settings import SETTINGS
from minibench.methods import Method, discover
from minibench.plan import Plan
from minibench.results import write_results
from minibench.scheduler import Failure, cores, run_steps
from minibench.settings import BUDGETS, make_settings
from minibench.toy_clip import command as toy_clip
from minibench.tuning import chosen, make_finals, make_trials, write_tuning
from PADing.command_line import CommandParser, count, positive, quiet_ctrl_c, run_command
from PADing.data.mini import UNSEEN
from PADing.data.mini_v2.vectors import TRACKS
from PADing.engine.output_folder import training_folder, training_in
from PADing.errors import Interrupted, UserError
from PADing.files import read_json

NOISE = 0.15  # of the class embeddings of version 1
BUDGETS_OF_BOTH = tuple(dict.fromkeys([*BUDGETS, *BUDGETS_2]))
# Flags of one version alone.
OF_VERSION = {
    1: ("split", "train", "val", "size", "noise", "distractors"),
    2: ("folds", "fold_list", "track", "world", "warm_start", "images"),
}


def cli(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 for failed steps, 2 for a mistake in the arguments."""
    args = _parser().parse_args(argv)
    logging.basicConfig(format="%(message)s")
    return run_command(args.function, args)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(__doc__, prog="python -m minibench")
    names = (
        "run|tune|causes|list|report|pool|verify|leaderboard|warm-start|quickstart|distractors|packaged-model|toy-clip"
    )
    commands = parser.add_subparsers(required=True, metavar=names)
    run = commands.add_parser("run", help="train and evaluate all methods that are not finished, then write the report")
    run.set_defaults(function=run_all)
    _add_run_options(run, "full: 3, quick: 1; tuning split: seed 0", BUDGETS_OF_BOTH)
    _add_version_2(run)
    run.add_argument("--split", choices=sorted(UNSEEN), help="which classes are unseen (compositional)")
    run.add_argument("--no-report", action="store_true", help="write results.json only")
    further = "then evaluate main methods and baselines with so many further names: distractors.json (0,100,1000)"
    run.add_argument(
        "--distractors",
        type=distractors.numbers_of,
        nargs="?",
        const=distractors.NUMBERS,
        metavar="N,...",
        help=further,
    )
    tune = commands.add_parser("tune", help="try the hyperparameters that methods list, on the tuning split")
    tune.set_defaults(function=tune_all)
    _add_run_options(tune, "seed 0; version 2: 1", BUDGETS_OF_BOTH)
    _add_version_2(tune, "1,2,3", tuning=True)
    causes = commands.add_parser("causes", help="run the cause experiments on the folds of a benchmark of version 2")
    causes.set_defaults(function=_causes)
    causes.add_argument("run", type=Path, metavar="RUN", help="folder of `run --version 2`, which is only read")
    causes.add_argument("--experiments", type=_names, metavar="A,B,...", help="names of experiments (default: all)")
    causes.add_argument("--fold-list", type=_numbers, metavar="1,2,...", help="folds (those that have features)")
    causes.add_argument("--seed-list", type=_numbers, metavar="1,2,...", help="second-stage seeds (the benchmark's)")
    _add_images(causes)
    _add_jobs(causes)
    show = commands.add_parser("list", help="list the methods, and what each leaves out")
    show.set_defaults(function=list_methods)
    report = commands.add_parser("report", help="write the report of finished runs")
    report.set_defaults(function=lambda args: _report(args.out.absolute(), args.to))
    report.add_argument("--to", type=Path, metavar="FOLDER", help="where the report is written (OUTPUT/report)")
    joined = commands.add_parser("pool", help="join the results.json of several runs: seeds with equal settings")
    joined.set_defaults(function=pool_results)
    joined.add_argument("files", nargs="+", type=Path, metavar="RESULTS.json", help="files to join")
    checked = commands.add_parser("verify", help="verify a results.json of version 2 against the frozen data")
    checked.set_defaults(function=_verify)
    checked.add_argument("file", type=Path, metavar="RESULTS.json", help="the file")
    board = commands.add_parser("leaderboard", help="show the leaderboard of version 2, or add a method to it")
    board.set_defaults(function=_leaderboard)
    board.add_argument("file", nargs="?", type=Path, metavar="RESULTS.json", help="results to add; none: show")
    board.add_argument("--method", help="which of their methods")
    board.add_argument("--tried", type=positive, metavar="N", help="hyperparameter settings that were tried")
    board.add_argument("--file", dest="board", type=Path, help="the leaderboard (docs/minibench/leaderboard.json)")
    warm = commands.add_parser("warm-start", help="train what all segmenters of version 2 start from")
    warm.set_defaults(function=_warm_start)
    _add_lengths(warm, tuple(BUDGETS_2), "standard")
    for command in (run, tune, show, joined, warm):
        plugins = "a folder with a minibench.yaml, or with subfolders that have one; repeatable"
        command.add_argument("--plugins", action="append", default=[], type=Path, metavar="PATH", help=plugins)
    folders = {
        run: "minibench",
        tune: "minibench_tuning",
        causes: "minibench2_causes",
        report: "minibench",
        joined: "minibench_pooled",
    }
    folders[warm] = "minibench2"
    for command, folder in folders.items():
        default = Path("output", folder)
        command.add_argument("--output", "--out", dest="out", type=Path, default=default, help="folder of results")
    help_text = "the smallest run: PADing and its pretraining, one table"
    small = commands.add_parser("quickstart", help=help_text, description=quickstart.__doc__)
    quickstart.add_options(small)
    small.add_argument("--num-gpus", type=count, default=0, metavar="N", help="0: use the CPU")
    help_text = "train the mini model that is part of the package"
    packaged.add_options(commands.add_parser("packaged-model", help=help_text, description=packaged.__doc__))
    help_text = "evaluate runs again with further class names that no image shows"
    distractors.add_options(commands.add_parser("distractors", help=help_text, description=distractors.__doc__))
    help_text = "train a small CLIP on the mini data set's pictures and words"
    toy_clip.add_options(commands.add_parser("toy-clip", help=help_text, description=toy_clip.__doc__))
    return parser


def _add_run_options(command: argparse.ArgumentParser, usual_seeds: str, budgets: Sequence[str] = BUDGETS) -> None:
    command.add_argument("--methods", type=_names, metavar="A,B,...", help="names of methods (default: all)")
    seeds = command.add_mutually_exclusive_group()
    seeds.add_argument("--seeds", type=positive, metavar="N", help=f"use the seeds 1..N ({usual_seeds})")
    seeds.add_argument("--seed-list", type=_numbers, metavar="1,2,...", help="use these seeds")
    _add_lengths(command, budgets, "full; version 2: standard" if budgets is not BUDGETS else "full")
    command.add_argument("--train", type=positive, metavar="N", help="training images (2000)")
    command.add_argument("--val", type=positive, metavar="N", help="validation images (300)")
    command.add_argument("--size", type=positive, metavar="N", help="side of an image in pixels (128)")
    command.add_argument("--noise", type=float, metavar="F", help="noise of the class embeddings (0.15)")


def _add_lengths(command: argparse.ArgumentParser, budgets: Sequence[str], usual: str) -> None:
    command.add_argument("--budget", choices=budgets, help=f"length of the trainings ({usual})")
    _add_jobs(command)


def _add_images(command: argparse.ArgumentParser) -> None:
    command.add_argument("--images", type=positive, metavar="N", help="validation images of a row (250)")


def _add_jobs(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--jobs", type=positive, default=cores(), help="number of parallel processes (default: the number of cores)"
    )


def _add_version_2(
    command: argparse.ArgumentParser, usual: str = "standard: 6, full: 10", tuning: bool = False
) -> None:
    command.add_argument("--version", type=int, choices=(1, 2), default=1, help="of the benchmark (1)")
    second = command.add_argument_group("version 2")
    folds = second.add_mutually_exclusive_group()
    folds.add_argument("--folds", type=positive, metavar="N", help=f"use the folds 1..N ({usual})")
    folds.add_argument("--fold-list", type=_numbers, metavar="1,2,...", help="use these folds")
    second.add_argument("--track", choices=TRACKS, help="class vectors (clip)")
    if tuning:
        _add_images(second)  # type: ignore[arg-type]
    else:
        second.add_argument("--world", choices=("test", "tuning"), help="whose classes (test)")
    second.add_argument("--warm-start", type=Path, metavar="FILE", help="start from this one, instead of training it")


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("the list is empty")
    return names


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in _names(text)]
    except ValueError:
        message = f"must be whole numbers separated by commas, such as 1,2,3, but is {text!r}"
        raise argparse.ArgumentTypeError(message) from None


def _check_version(args: argparse.Namespace) -> None:
    """UserError for flags that only the other version has."""
    foreign = OF_VERSION[3 - args.version]
    given = [flag for flag in foreign if getattr(args, flag, None) is not None]
    if args.version == 2 and getattr(args, "no_report", False):
        given.append("no_report")
    if given:
        flags = ", ".join(f"--{flag.replace('_', '-')}" for flag in given)
        raise UserError(f"Version {args.version} of the benchmark has no {flags}. Leave it out, or name --version.")
    if args.budget is not None and args.budget not in (BUDGETS if args.version == 1 else BUDGETS_2):
        raise UserError(f"Version {args.version} of the benchmark has no --budget {args.budget}.")


def _verify(args: argparse.Namespace) -> int:
    from minibench.folds.submission import problems, told

    content = read_json(args.file, "Results of the mini benchmark")
    found = problems(content)
    print(told(found, content))
    return int(bool(found))


def _leaderboard(args: argparse.Namespace) -> int:
    from minibench.folds.leaderboard import FILE, add, check, table

    board = args.board or FILE
    if args.file is not None:
        if not args.method or args.tried is None:
            raise UserError("To add an entry, say --method NAME and --tried N, the number of settings that were tried.")
        print(add(read_json(args.file, "Results of the mini benchmark"), args.method, args.tried, board))
        return 0
    if args.method is not None or args.tried is not None:
        raise UserError("--method and --tried belong to an entry. Name its RESULTS.json, too, or leave them out.")
    content = read_json(board, "Leaderboard")
    found = check(content)
    print("\n".join(found[:12]) if found else table(content))
    return int(bool(found))


def _warm_start(args: argparse.Namespace) -> int:
    from minibench.folds.command import train_warm_start

    return train_warm_start(args)


def _causes(args: argparse.Namespace) -> int:
    from minibench.folds.cause_command import run_causes

    return run_causes(args)


def list_methods(args: argparse.Namespace) -> None:
    """Print a line for each method."""
    methods = discover(args.plugins)
    width = max(map(len, methods))
    for method in methods.values():
        note = f"; {method.ablates} minus {method.removes}" if method.ablates else ""
        print(f"{method.name:{width}}  {method.title} ({method.task}; starts from {method.starts_from}{note})")


def run_all(args: argparse.Namespace) -> int:
    """Run the plan and write the report; returns the exit status."""
    _check_version(args)
    if args.version == 2:
        from minibench.folds.command import run_version_2

        return run_version_2(args)
    methods = discover(args.plugins)
    failed = _run(args, methods, args.methods or list(methods))
    if args.distractors:
        from minibench.distractor_runs import evaluate_runs

        logging.getLogger("PADing").setLevel(logging.WARNING)
        for line in evaluate_runs(args.out.absolute(), None, args.distractors, 0, overwrite=False):
            print(line, flush=True)
    if not args.no_report:
        _report(args.out.absolute())
    return int(failed)


def tune_all(args: argparse.Namespace) -> int:
    """Run the trials that the methods list and print the table of those that did not fail; returns the exit status."""
    _check_version(args)
    if args.version == 2:
        from minibench.folds.tune import tune_version_2

        return tune_version_2(args)
    args.split = "tuning"
    methods = discover(args.plugins)
    out, searches = args.out.absolute(), [methods[name] for name in chosen(methods, args.methods)]
    trials = {trial.name: trial for method in searches for trial in make_trials(method)}
    failed = _run(args, methods | trials, list(trials))
    budget = args.budget or "full"
    finals = {final.name: final for method in searches for final in make_finals(out, method, budget)}
    if finals:
        failed |= _run(args, methods | trials | finals, list(finals))
    print(write_tuning(out, searches).read_text(encoding="utf-8"))
    return int(failed)


def pool_results(args: argparse.Namespace) -> None:
    """Join files of results."""
    from minibench.pool import pool

    print(pool(args.files, discover(args.plugins), args.out))


def _run(args: argparse.Namespace, methods: Mapping[str, Method], names: Sequence[str]) -> bool:
    """Finish all runs of ``names`` and update ``results.json`` after each; returns whether a step failed."""
    seeds = args.seed_list if args.seeds is None else range(1, args.seeds + 1)
    split, budget, noise = args.split or "compositional", args.budget or "full", args.noise
    noise = NOISE if noise is None else noise
    settings = make_settings(split, budget, seeds, args.train, args.val, args.size, noise)
    out = args.out.absolute()
    if (out / SETTINGS).is_file():
        raise UserError(f"{out} has a benchmark of version 2. Choose another --output, or add --version 2.")
    plan = Plan(methods, names, settings, out)
    steps = plan.steps(after_run=lambda: write_results(out, methods, settings))
    display = Display()
    if training_in(out):
        raise UserError(f"Another benchmark is running in {out}. Wait for it, or choose another --output.")
    with training_folder(out, resume=True, overwrite=False):
        try:
            before = sum(step.done() for step in steps)
            display.line(f"{len(steps)} steps in {out}, {before} done before; {args.jobs} in parallel")
            failures = run_steps(steps, args.jobs, display)
        except Interrupted:
            display.line("Stopped. Run the same command again to continue.")
            raise
        for seed in settings.seeds:
            plan.drop_answers(seed)
        write_results(out, methods, settings)
    if failures:
        _explain(failures, [step.name for step in steps if not step.done()], display)
        return True
    total = sum(filter(None, (step.measured() for step in steps)))
    display.line(f"All done after {duration(total)} of computing: {out / 'results.json'}")
    return False


def _explain(failures: list[Failure], unfinished: list[str], display: Display) -> None:
    for failure in failures:
        display.line(f"\n{failure.step.name} failed (exit status {failure.status}): {failure.error}")
        display.line(f"  log: {failure.step.log}")
    if skipped := [name for name in unfinished if name not in {failure.step.name for failure in failures}]:
        display.line(f"not run, because they need these: {', '.join(skipped)}")
    display.line("The other results are complete. Fix the cause, then run the same command again for the rest.")


def _report(out: Path, to: Path | None = None) -> None:
    if not (out / "results.json").is_file():
        raise UserError(f"{out} has no results.json. Make it with: python -m minibench run --output {out}")
    if read_json(out / "results.json", "Results of the mini benchmark").get("version") == 2:
        from minibench.folds.command import report_version_2

        print(report_version_2(out, to))
        return
    # Imported here: only the report needs the drawing packages.
    from minibench.report.write import write_report

    write_report(out, to)
    print(f"Report: {(out / 'report' if to is None else to) / 'index.html'}")


if __name__ == "__main__":
    quiet_ctrl_c()
    sys.exit(cli())
