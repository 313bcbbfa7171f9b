"""The command line of ``tools/minibench.py``."""

import argparse
import logging
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from minibench.display import Display, duration
from minibench.methods import Method, discover
from minibench.plan import Plan
from minibench.results import write_results
from minibench.scheduler import Failure, Lock, cores, run_steps
from minibench.settings import BUDGETS, make_settings
from minibench.tuning import chosen, make_finals, make_trials, write_tuning
from PADing.command_line import positive, run_command
from PADing.data.mini import UNSEEN
from PADing.errors import UserError

DESCRIPTION = """The mini benchmark: every method on the mini data set, from one shared pretraining per seed.

    python tools/minibench.py run                              # all methods, three seeds; two cores: within 4 h
    python tools/minibench.py run --budget quick               # one seed, within half an hour
    python tools/minibench.py run --methods pading,gmmn --seed-list 4
    python tools/minibench.py run --plugins examples           # with the methods of docs/add_a_method.md
    python tools/minibench.py tune --methods pading,gmmn       # the settings that they name, on the tuning split
    python tools/minibench.py list
    python tools/minibench.py report --output output/minibench

Finished work is never repeated, and what was interrupted goes on from its last checkpoint: run the same line again. To
have a run repeated, delete its folder below <out>/runs.
"""


def cli(argv: Sequence[str] | None = None) -> int:
    """Parse arguments and do what they say; returns the exit status: 0, 1 for failed steps, 2 for a mistake."""
    args = _parser().parse_args(argv)
    logging.basicConfig(format="%(message)s")
    return run_command(args.function, args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="run|tune|list|report")
    plugins = {"action": "append", "default": [], "type": Path, "metavar": "PATH"}
    out = {"dest": "out", "type": Path, "default": Path("output/minibench"), "help": "folder of results (%(default)s)"}

    run = commands.add_parser("run", help="train and evaluate what is not finished, then write the report")
    run.set_defaults(function=run_all)
    tune = commands.add_parser("tune", help="try the settings that methods name, on the tuning split")
    tune.set_defaults(function=tune_all, split="tuning")
    for command in (run, tune):
        command.add_argument("--methods", type=_names, metavar="A,B,...", help="which (all)")
        command.add_argument(
            "--plugins", **plugins, help="a folder with a minibench.yaml, or of such folders; may be repeated"
        )
        seeds = command.add_mutually_exclusive_group()
        usual = "full: 3, quick: 1; tuning split: seed 0" if command is run else "seed 0"
        seeds.add_argument("--seeds", type=positive, metavar="N", help=f"seeds 1..N ({usual})")
        seeds.add_argument("--seed-list", type=_numbers, metavar="1,2,...", help="these seeds instead")
        command.add_argument("--budget", choices=BUDGETS, default="full", help="length of the trainings (%(default)s)")
        jobs_help = "processes at a time (%(default)s, the cores)"
        command.add_argument("--jobs", type=positive, default=cores(), help=jobs_help)
        command.add_argument("--train", type=positive, metavar="N", help="training images (2000)")
        command.add_argument("--val", type=positive, metavar="N", help="validation images (300)")
        command.add_argument("--size", type=positive, metavar="N", help="side of an image in pixels (128)")
        noise_help = "of the class vectors (%(default)s)"
        command.add_argument("--noise", type=float, default=0.15, metavar="F", help=noise_help)
    splits = sorted(UNSEEN)
    run.add_argument("--split", choices=splits, default="compositional", help="which classes are unseen (%(default)s)")
    run.add_argument("--output", "--out", **out)
    run.add_argument("--no-report", action="store_true", help="stop when results.json is written")
    tune.add_argument("--output", "--out", **{**out, "default": Path("output/minibench_tuning")})

    show = commands.add_parser("list", help="the methods, and what each leaves out")
    show.set_defaults(function=list_methods)
    show.add_argument("--plugins", **plugins, help="as for run")

    report = commands.add_parser("report", help="write the report again from finished runs")
    report.set_defaults(function=lambda args: _report(args.out.absolute()))
    report.add_argument("--output", "--out", **out)
    return parser


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("the list is empty")
    return names


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in _names(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"whole numbers with commas between them, as 1,2,3, but not {text!r}"
        ) from None


def list_methods(args: argparse.Namespace) -> None:
    """Print a line for each method."""
    methods = discover(args.plugins)
    width = max(map(len, methods))
    for method in methods.values():
        note = f"; {method.ablates} minus {method.removes}" if method.ablates else ""
        print(f"{method.name:{width}}  {method.title} ({method.task}; starts from {method.starts_from}{note})")


def run_all(args: argparse.Namespace) -> None:
    """Run the plan and report what is there; ``SystemExit`` with 1 if a step failed, 130 after Ctrl-C or SIGTERM."""
    methods = discover(args.plugins)
    failed = _run(args, methods, args.methods or list(methods))
    if not args.no_report:
        _report(args.out.absolute())
    if failed:
        raise SystemExit(1)


def tune_all(args: argparse.Namespace) -> None:
    """Run every setting that the methods name; then the table of all, and the best of each. Ends as ``run_all``.

    A setting with which the training fails has no figures; the others are compared.
    """
    methods = discover(args.plugins)
    out, searches = args.out.absolute(), [methods[name] for name in chosen(methods, args.methods)]
    trials = [trial for method in searches for trial in make_trials(method)]
    known = {**methods, **{trial.name: trial for trial in trials}}
    failed = _run(args, known, [trial.name for trial in trials])
    finals = [final for method in searches for final in make_finals(out, method, args.budget)]
    if finals:
        failed |= _run(args, {**known, **{final.name: final for final in finals}}, [final.name for final in finals])
    path = write_tuning(out, searches)
    print(path.read_text(encoding="utf-8"))
    if failed:
        raise SystemExit(1)


def _run(args: argparse.Namespace, methods: Mapping[str, Method], names: Sequence[str]) -> bool:
    """Finish all runs of ``names``, with ``results.json`` as it grows; whether a step failed."""
    seeds = args.seed_list if args.seeds is None else range(1, args.seeds + 1)
    settings = make_settings(args.split, args.budget, seeds, args.train, args.val, args.size, args.noise)
    out = args.out.absolute()
    plan = Plan(methods, names, settings, out)
    steps = plan.steps()
    for step in steps:
        if step.name.split("-seed")[0] in methods:
            step.finish = _then(step.finish, lambda: write_results(out, methods, settings))
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".lock").touch()
    except OSError as error:
        raise UserError(f"--output {out} cannot be written to: {error.strerror}. Choose another folder.") from error
    display = Display()
    try:
        with Lock(out / ".lock") as lock:
            before = sum(step.done() for step in steps)
            display.line(f"{len(steps)} steps in {out}, {before} of them done before; {args.jobs} at a time")
            failures = run_steps(steps, args.jobs, display, keep_open=[lock])
            for seed in settings.seeds:
                plan.drop_answers(seed)
            write_results(out, methods, settings)
    except BlockingIOError:
        raise UserError(f"Another benchmark is running in {out}. Wait for it, or choose another --output.") from None
    except KeyboardInterrupt:
        display.line("Stopped. The same command goes on from here.")
        raise SystemExit(130) from None
    if failures:
        _explain(failures, [step.name for step in steps if not step.done()], display)
        return True
    total = sum(filter(None, (step.measured() for step in steps)))
    display.line(f"All done, {duration(total)} of computing: {out / 'results.json'}")
    return False


def _explain(failures: list[Failure], unfinished: list[str], display: Display) -> None:
    failed = {failure.step.name for failure in failures}
    for failure in failures:
        display.line(
            f"\n{failure.step.name} failed (exit status {failure.status}): {failure.error}\n  log: {failure.step.log}"
        )
    skipped = [name for name in unfinished if name not in failed]
    if skipped:
        display.line(f"not run, because it waits for these: {', '.join(skipped)}")
    display.line("The other results are there. When the cause is mended, the same command does the rest.")


def _report(out: Path) -> None:
    if not (out / "results.json").is_file():
        raise UserError(f"{out} holds no results.json. Make it with: python tools/minibench.py run --output {out}")
    # Imported here, because it needs what draws, which the run does not.
    from minibench.report import write_report

    write_report(out)
    print(f"Report: {out / 'report' / 'index.html'}")


def _then(first, second):
    def both(seconds: float) -> None:
        first(seconds)
        second()

    return both


def _interrupt(*_) -> None:
    raise KeyboardInterrupt
