#!/usr/bin/env python3
"""The main job, end to end: mini data, stage 1, conversion, PADing, evaluation, one table, pictures and loss curves.

    make quickstart                       # about 15 minutes on two CPU cores
    make quickstart ARGS="--seed 2 --fresh"
    python tools/quickstart.py --smoke    # the same steps in a minute or two, far too short to learn anything

Each step is an ordinary command, printed as it runs, so that you can repeat it by hand. A finished step is not run
again, and an interrupted training goes on where its last checkpoint was: just run the same line once more. Everything,
the drawn data too, lies in the folder ``--output``.
"""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from PADing.command_line import STATUS_USER_ERROR, count, run_command
from PADing.engine.output_folder import training_folder, training_in
from PADing.engine.progress import read_progress
from PADing.errors import UserError
from PADing.files import read_json, write_json

REPOSITORY = Path(__file__).resolve().parents[1]
RECORD = "settings.json"  # marks a folder as one of this tool

# Columns of the table, by task, under the evaluators' names.
COLUMNS = {
    "panoptic_seg": ("PQ_se", "PQ_un", "PQ_hm", "SQ", "RQ"),
    "sem_seg": ("seen_IoU", "unseen_IoU", "hIoU"),
    "segm": ("AP50_seen", "AP50_unseen", "AP50_hm"),
}


@dataclass(frozen=True)
class Step:
    """One command. ``share``: its usual part of the whole time. ``done``: the file that it leaves when it succeeds."""

    title: str
    command: list[str]
    share: float
    done: Path
    always: bool = False  # run it even when ``done`` exists, because it checks by itself what is left to do


def plan_steps(out: Path, seed: int, smoke: bool) -> list[Step]:
    """The commands of the main job, in order; their data are in ``data_root(out)``."""
    data = data_root(out) / "mini"
    pretrain, pading, weights = out / "pretrain", out / "pading", out / "pretrained_weight_panoptic.pth"
    stage_1 = ["--config-file", "configs/mini/panoptic-pretrain.yaml", "--num-gpus", "0"]
    stage_2 = ["--config-file", "configs/mini/panoptic-PADing.yaml", "--num-gpus", "0"]
    vectors = ["MODEL.CLASS_EMBEDDINGS", str(data / "class_vectors.npz")]
    images, pictures, training = [], ["--number", "12"], ["SEED", str(seed)]
    if smoke:
        images, pictures = ["--train", "24", "--val", "8"], ["--number", "2"]
        training += ["SOLVER.MAX_ITER", "6", "SOLVER.IMS_PER_BATCH", "2"]

    def step(title: str, command: list, share: float, done: Path, always: bool = False) -> Step:
        return Step(title, [sys.executable, *map(str, command)], share, done, always)

    return [
        step(
            "draw the mini data set",
            ["datasets/make_mini_coco.py", "--out", data, "--seed", seed, *images],
            share=0.05,
            done=data / "mini.json",
            always=True,
        ),
        step(
            "stage 1: train Mask2Former on the seen classes, evaluate it on all",
            ["train_net_pretrain.py", *stage_1, "--resume", "OUTPUT_DIR", pretrain, *training],
            share=0.74,
            done=pretrain / "results.json",
        ),
        step(
            "convert the weights",
            ["tools/preprocess_pretrained_weight.py", "--task_name", "panoptic"]
            + ["--input_file", pretrain / "model_final.pth", "--output_file", weights],
            share=0.01,
            done=weights,
        ),
        step(
            "stage 2: train PADing's generator and classifier, evaluate",
            ["train_net.py", *stage_2, "--resume", "MODEL.WEIGHTS", weights, "OUTPUT_DIR", pading, *vectors, *training],
            share=0.18,
            done=pading / "results.json",
        ),
        step(
            "draw predictions",
            ["tools/visualize_predictions.py", *stage_2, "--output", out / "pictures", *pictures]
            + ["--baseline", "configs/mini/panoptic-pretrain.yaml", pretrain / "model_final.pth"]
            + ["MODEL.WEIGHTS", pading / "model_final.pth", *vectors],
            share=0.02,
            done=out / "pictures" / "overview.png",
        ),
    ]


def data_root(out: Path) -> Path:
    """$DETECTRON2_DATASETS of a run: its own folder, so that no run draws over the data of another."""
    return out / "data"


def run_steps(plan: list[Step], out: Path, report_every: float = 10.0) -> None:
    """Run what is left to do; all output goes to ``out/log.txt``, the screen gets progress and the time left.

    Raises:
        UserError, SystemExit: when a command fails, the end of its output is shown; or a signal stopped it.
    """
    log, variable = out / "log.txt", {"DETECTRON2_DATASETS": str(data_root(out))}
    for index, step in enumerate(plan):
        print(f"[{index + 1}/{len(plan)}] {step.title}")
        if step.done.exists() and not step.always:
            print("      done before")
            continue
        setting = shlex.join(f"{name}={value}" for name, value in variable.items())
        print(f"      $ {setting} {shlex.join(['python', *step.command[1:]])}", flush=True)
        started = reported = time.monotonic()
        tail: deque[str] = deque(maxlen=25)
        later = sum(s.share for s in plan[index + 1 :] if s.always or not s.done.exists()) / step.share
        with open(log, "a", encoding="utf-8") as sink, running(step.command, variable) as (child, signals):
            for line in child.stdout:
                sink.write(line)
                tail.append(line)
                now = time.monotonic()
                progress = read_progress(line)
                if progress and progress.phase == "training" and now - reported > report_every:
                    reported = now
                    left = progress.seconds_left
                    losses = (f"{name} {value}" for name, value in progress.losses.items())
                    text = "  ".join([f"iteration {progress.done}", *losses])
                    everything = left + (now - started + left) * later
                    left_for = f"{timedelta(seconds=left)} left, {everything / 60:.0f} min for all"
                    print(f"      {text}  {left_for}", flush=True)
            status = child.wait()
        if signals:
            print("Stopped. Run the same line once more to go on.", file=sys.stderr)
            raise SystemExit(128 + signals[0])
        if status != 0 or not step.done.exists():
            print("".join(tail), file=sys.stderr)
            message = f"This step failed (exit status {status}). The whole output is in {log}."
            raise UserError(message) if status == STATUS_USER_ERROR else SystemExit(message)
        print(f"      {time.monotonic() - started:.0f} s", flush=True)


@contextmanager
def running(command: list[str], variables: dict[str, str]) -> Iterator[tuple[subprocess.Popen, list[int]]]:
    """Start a command with one stream of output; yields it and the signals that came while it ran.

    Ctrl-C, SIGTERM and a closed terminal are passed on, because a training saves what it has before it ends. It runs
    in a session of its own, so that they reach it once.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "errors": "replace"}
    child = subprocess.Popen(
        command, cwd=REPOSITORY, env=os.environ | variables, start_new_session=True, encoding="utf-8", **pipes
    )
    came: list[int] = []

    def forward(number: int, _frame) -> None:
        came.append(number)
        child.send_signal(number)

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield child, came
    except BaseException:
        child.terminate()  # nobody would read its output any more
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def table(models: dict[str, dict]) -> str:
    """One row for each model (name -> the evaluators' results), columns as ``COLUMNS``."""
    rows = [["", *(key for keys in COLUMNS.values() for key in keys)]]
    for name, results in models.items():
        figures = [results[task][key] for task, keys in COLUMNS.items() for key in keys]
        # JSON has no NaN: a mean over classes of which one never occurs in the ground truth comes back as None.
        rows.append([name, *("nan" if figure is None else f"{figure:.1f}" for figure in figures)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *padded]))
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def open_folder(out: Path, settings: dict, fresh: bool) -> dict:
    """Make ``out`` ready, or find the unfinished run in it; returns its record.

    Raises:
        UserError: ``out`` holds something else, or a run with other settings, or a run that is going on.
    """
    record = out / RECORD
    if out.exists() and not out.is_dir():
        raise UserError(f"--output {out} is a file; name a folder.")
    ours = record.is_file() or not out.exists() or not any(out.iterdir())
    if not ours:
        raise UserError(f"--output {out} holds other files and no run of this tool; name another folder.")
    if fresh and out.exists():
        running = training_in(out)
        if running:
            raise UserError(f"A run is going on in {out} ({running}); stop it before --fresh removes the folder.")
        shutil.rmtree(out)
    if not record.is_file():
        write_json(record, {"settings": settings, "seconds": 0.0})
    state = read_json(record, "Record of the quickstart")
    if state.get("settings") != settings:
        raise UserError(
            f"{out} holds a run with {state.get('settings')}. Add --fresh to throw it away, or name another --output."
        )
    return state


def main(args: argparse.Namespace) -> None:
    """Run all steps, or those that are left, and print the table.

    Raises:
        UserError: see ``open_folder`` and ``run_steps``.
    """
    started = time.time()
    out = args.out.absolute()
    state = open_folder(out, {"seed": args.seed, "smoke": args.smoke}, args.fresh)
    with training_folder(out, resume=True, overwrite=False):
        try:
            run_steps(plan_steps(out, args.seed, args.smoke), out)
        finally:
            state["seconds"] = state.get("seconds", 0.0) + time.time() - started
            write_json(out / RECORD, state)
        report(out, args.seed, state["seconds"])


def report(out: Path, seed: int, seconds: float) -> None:
    """Loss curves, ``results.json`` and the table of a finished run."""
    from PADing.visualization import plot_curves

    stage_1, stage_2 = ["loss_ce", "loss_mask", "loss_dice"], ["gan_loss_total_loss", "id_loss_total_loss"]
    curves = {
        "stage 1: Mask2Former, last layer": (out / "pretrain" / "metrics.json", stage_1),
        "stage 2: PADing": (out / "pading" / "metrics.json", stage_2),
    }
    plot_curves(curves, out / "losses.png")
    # A configuration with one test set gives one entry.
    baseline, pading = (
        next(iter(read_json(out / stage / "results.json", "Results").values())) for stage in ("pretrain", "pading")
    )
    results = {"seed": seed, "seconds": round(seconds, 1), "baseline": baseline, "pading": pading}
    write_json(out / "results.json", results)
    print(f"\nMini data set, seed {seed}, {seconds / 60:.1f} min in all\n")
    print(table({"Mask2Former, seen classes only": baseline, "PADing": pading}))
    print("\nse/seen, un/unseen: means over seen and unseen classes; hm/hIoU: their harmonic mean.")
    print(f"Pictures: {out / 'pictures' / 'overview.png'}   loss curves: {out / 'losses.png'}   {out / 'results.json'}")


def _seed(text: str) -> int:
    number = count(text)
    if number >= 2**32:
        raise argparse.ArgumentTypeError(f"must be below 2**32, but is {text}")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = Path("output/quickstart")
    where = {"dest": "out", "type": Path, "default": folder}
    parser.add_argument("--output", "--out", help="folder of data and results (%(default)s)", **where)
    parser.add_argument("--seed", type=_seed, default=1, help="of the data and of both trainings (%(default)s)")
    parser.add_argument("--fresh", action="store_true", help="throw away the run in --output and start over")
    parser.add_argument("--smoke", action="store_true", help="a minute or two instead of a quarter of an hour")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main, _parser().parse_args()))
