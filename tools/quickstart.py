#!/usr/bin/env python3
"""The main job, end to end: mini data, stage 1, conversion, PADing, evaluation, one table, pictures and loss curves.

    make quickstart                       # about 15 minutes on two CPU cores
    make quickstart ARGS="--seed 2 --fresh"
    python tools/quickstart.py --smoke    # the same steps in a minute or two, far too short to learn anything

Each step is an ordinary command, printed as it runs, so that you can repeat it by hand. A finished step is not run
again, and an interrupted training goes on where its last checkpoint was: just run the same line once more.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from PADing.engine.progress import read_progress

REPOSITORY = Path(__file__).resolve().parents[1]

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


def plan_steps(out: Path, data: Path, seed: int, smoke: bool) -> list[Step]:
    """The commands of the main job, in order."""
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


def run_steps(plan: list[Step], log: Path, report_every: float = 10.0) -> None:
    """Run what is left to do; all output goes to ``log``, the screen gets progress and the time left.

    Raises:
        SystemExit: when a command fails; the end of its output is shown.
    """
    for index, step in enumerate(plan):
        print(f"[{index + 1}/{len(plan)}] {step.title}")
        if step.done.exists() and not step.always:
            print("      done before")
            continue
        print("      $ " + shlex.join(["python", *step.command[1:]]), flush=True)
        started = reported = time.monotonic()
        tail: deque[str] = deque(maxlen=25)
        later = sum(s.share for s in plan[index + 1 :] if s.always or not s.done.exists()) / step.share
        with open(log, "a") as sink:
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
            child = subprocess.Popen(step.command, cwd=REPOSITORY, **pipes)
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
        if child.wait() != 0 or not step.done.exists():
            print("".join(tail), file=sys.stderr)
            raise SystemExit(f"This step failed (exit status {child.returncode}). The whole output is in {log}.")
        print(f"      {time.monotonic() - started:.0f} s", flush=True)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("output/quickstart"), help="folder of results (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the data and of both trainings (%(default)s)")
    parser.add_argument("--fresh", action="store_true", help="throw away earlier results and start over")
    parser.add_argument("--smoke", action="store_true", help="a minute or two instead of a quarter of an hour")
    args = parser.parse_args()

    started = time.time()
    out = args.out.absolute()
    data = Path(os.environ.get("DETECTRON2_DATASETS", REPOSITORY / "datasets")).absolute() / "mini"
    os.environ["DETECTRON2_DATASETS"] = str(data.parent)
    settings = {"seed": args.seed, "smoke": args.smoke}
    if args.fresh:
        shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    record = out / "settings.json"
    state = json.loads(record.read_text()) if record.exists() else {"settings": settings, "seconds": 0.0}
    if state["settings"] != settings:
        raise SystemExit(f"{out} holds a run with {state['settings']}. Add --fresh to replace it, or change --out.")

    try:
        run_steps(plan_steps(out, data, args.seed, args.smoke), out / "log.txt")
    finally:
        state["seconds"] += time.time() - started
        _write(record, state)

    from PADing.visualization import plot_curves

    stage_1, stage_2 = ["loss_ce", "loss_mask", "loss_dice"], ["gan_loss_total_loss", "id_loss_total_loss"]
    curves = {
        "stage 1: Mask2Former, last layer": (out / "pretrain" / "metrics.json", stage_1),
        "stage 2: PADing": (out / "pading" / "metrics.json", stage_2),
    }
    plot_curves(curves, out / "losses.png")
    # A configuration with one test set gives one entry.
    baseline, pading = (
        next(iter(json.loads((out / stage / "results.json").read_text()).values())) for stage in ("pretrain", "pading")
    )
    results = {"seed": args.seed, "seconds": round(state["seconds"], 1), "baseline": baseline, "pading": pading}
    _write(out / "results.json", results)
    print(f"\nMini data set, seed {args.seed}, {state['seconds'] / 60:.1f} min in all\n")
    print(table({"Mask2Former, seen classes only": baseline, "PADing": pading}))
    print("\nse/seen, un/unseen: means over seen and unseen classes; hm/hIoU: their harmonic mean.")
    print(f"Pictures: {out / 'pictures' / 'overview.png'}   loss curves: {out / 'losses.png'}   {out / 'results.json'}")


def _write(path: Path, content: dict) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1))
    partial.replace(path)


if __name__ == "__main__":
    main()
