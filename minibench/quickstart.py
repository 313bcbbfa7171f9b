"""The smallest benchmark: draw the mini data set, train and evaluate PADing on its pretraining, print one table.

    make quickstart                       # about 7 minutes on two CPU cores
    make quickstart ARGS="--seed 2 --fresh"
    python -m minibench quickstart --smoke    # the same steps in a minute or two, far too short to learn anything

Each step is an ordinary command that is printed, so that you can repeat it by hand. Run the same command again to
continue: finished steps are kept, and an interrupted training resumes from its last checkpoint. All files, also the
drawn data, are in the folder ``--output``.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from minibench.display import Display
from minibench.methods import INSTANCE, PANOPTIC, SEMANTIC
from minibench.scheduler import run_steps
from minibench.steps import Step, training_progress
from PADing.command_line import STATUS_USER_ERROR, count
from PADing.engine.output_folder import training_folder, training_in
from PADing.errors import Interrupted, UserError
from PADing.files import REPOSITORY, read_json, write_json
from PADing.yaml_files import read_config_tree

RECORD = "settings.json"  # marks a folder of this tool
# Columns of the table, by task, under the evaluators' names.
COLUMNS = {PANOPTIC: (*PANOPTIC.metrics, "SQ", "RQ"), SEMANTIC: SEMANTIC.metrics, INSTANCE: INSTANCE.metrics}
# Seconds on two CPU cores.
USUAL, USUAL_SMOKE = 410, 40
CONFIGS = ("configs/mini/quickstart-pretrain.yaml", "configs/mini/quickstart-PADing.yaml")
# Processes of stage 1 on the CPU. The number is the same on all machines, because it changes the training, and the
# published figures are of two. Stage 2 has one: it compares sets of features, which two would halve.
PROCESSES = 2


def plan_steps(
    out: Path, seed: int, smoke: bool, configs: Sequence[str] = CONFIGS, gpus: int = 0, processes: int = PROCESSES
) -> list[Step]:
    """The commands of the main job; each needs the one before. Their data are in ``out/data``.

    ``configs`` are those of both stages, of this project. ``gpus``: 0 trains on the CPU, stage 1 in ``processes``.
    """
    data, pretrain, pading = out / "data" / "mini", out / "pretrain", out / "pading"
    weights, overview = out / "pretrained_weight_panoptic.pth", out / "pictures" / "overview.png"
    stage_1 = ["--config-file", configs[0], "--num-gpus", gpus or processes]
    stage_2 = ["--config-file", configs[1], "--num-gpus", min(gpus, 1)]
    device = ["MODEL.DEVICE", "cuda" if gpus else "cpu"]
    embeddings = ["MODEL.CLASS_EMBEDDINGS", data / "class_vectors.npz", *device]
    images, shown, training = [], ["--number", "12"], ["SEED", seed]
    lengths = [read_config_tree(REPOSITORY / config)["SOLVER"]["MAX_ITER"] for config in configs]
    if smoke:
        images, shown, lengths = ["--train", "24", "--val", "8"], ["--number", "2"], [6, 6]
        training += ["SOLVER.MAX_ITER", "6", "SOLVER.IMS_PER_BATCH", "2"]
    draw: list = ["datasets/make_mini_coco.py", "--out", data, "--seed", seed, *images]
    pretraining: list = ["train_net_pretrain.py", *stage_1, "--resume", "OUTPUT_DIR", pretrain, *device, *training]
    convert: list = ["tools/preprocess_pretrained_weight.py", "--task_name", "panoptic"]
    convert += ["--input_file", pretrain / "model_final.pth", "--output_file", weights]
    train: list = ["train_net.py", *stage_2, "--resume", "MODEL.WEIGHTS", weights, "OUTPUT_DIR", pading]
    show: list = ["tools/visualize_predictions.py", *stage_2, "--output", overview.parent, *shown]
    show += ["--baseline", configs[0], pretrain / "model_final.pth", "MODEL.WEIGHTS", pading / "model_final.pth"]
    # Name, command, the file that it writes when it succeeds, its share of the time, iterations of the training.
    table: list[tuple[str, list, Path, float, int]] = [
        ("data", draw, data / "mini.json", 0.06, 0),
        ("stage 1: Mask2Former on the seen classes", pretraining, pretrain / "results.json", 0.74, lengths[0]),
        ("conversion of the weights", convert, weights, 0.01, 0),
        ("stage 2: PADing", [*train, *embeddings, *training], pading / "results.json", 0.17, lengths[1]),
        ("drawing of predictions", [*show, *embeddings], overview, 0.02, 0),
    ]
    steps: list[Step] = []
    for name, command, left, share, iterations in table:
        step = Step(name, [sys.executable, *map(str, command)], out / "log.txt", left.is_file)
        step.always = name == "data"  # it checks existing data itself
        step.needs = tuple(before.name for before in steps[-1:])
        step.env = {"DETECTRON2_DATASETS": str(out / "data")}
        step.usual = share * (USUAL_SMOKE if smoke else USUAL)
        step.progress = partial(training_progress, left.parent, iterations) if iterations else step.progress
        steps.append(step)
    return steps


def run_plan(steps: Sequence[Step], out: Path) -> None:
    """Run the steps that are not done. If a command fails, print its last output; raises UserError or SystemExit."""
    display = Display(sys.stdout, period=10.0, commands=True)
    for step in steps:
        if step.done() and not step.always:
            display.line(f"done before  {step.name}")
    try:
        failures = run_steps(steps, 1, display, share_cores=False)
    except Interrupted:
        print("Stopped. Run the same command again to continue.", file=sys.stderr)
        raise
    if failures:
        status, log = failures[0].status, out / "log.txt"
        print(failures[0].output, file=sys.stderr)
        message = f"This step failed (exit status {status}). The whole output is in {log}."
        raise UserError(message) if status == STATUS_USER_ERROR else SystemExit(message)


def table(models: dict[str, dict]) -> str:
    """One row for each model (name -> the evaluators' results), columns as ``COLUMNS``."""
    rows = [["", *(key for keys in COLUMNS.values() for key in keys)]]
    for name, results in models.items():
        values = [results[task.key][key] for task, keys in COLUMNS.items() for key in keys]
        # JSON has no NaN. None is a mean over classes of which one is not in the ground truth.
        rows.append([name, *("nan" if value is None else f"{value:.1f}" for value in values)])
    first, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    layout = f"{{:{first}}}" + "".join(f"  {{:>{width}}}" for width in widths)
    lines = [layout.format(*row) for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def open_folder(out: Path, settings: dict, fresh: bool) -> dict:
    """Make the folder ``out``, or open the run in it; returns its record. UserError if it has other content."""
    record = out / RECORD
    if out.exists() and not out.is_dir():
        raise UserError(f"--output {out} is a file. Name a folder.")
    if out.exists() and any(out.iterdir()) and not record.is_file():
        raise UserError(f"--output {out} has other files and no run of this tool. Name another folder.")
    if fresh and out.exists():
        if running := training_in(out):
            raise UserError(
                f"A run is active in {out} ({running}). Stop it before you use --fresh, which deletes the folder."
            )
        shutil.rmtree(out)
    if not record.is_file():
        write_json(record, {"settings": settings, "seconds": 0.0})
    state = read_json(record, "Record of the quickstart")
    if (there := state.get("settings")) != settings:
        raise UserError(f"{out} has a run with {there}. Add --fresh to delete it, or name another --output.")
    return state


def main(args: argparse.Namespace) -> None:
    """Run the steps that are not done and print the table."""
    started = time.time()
    out = args.out.absolute()
    # With the configs, so that a run of another network, of an earlier version, is neither continued nor shown as this.
    state = open_folder(out, {"seed": args.seed, "smoke": args.smoke, "configs": list(CONFIGS)}, args.fresh)
    with training_folder(out, resume=True, overwrite=False):
        try:
            run_plan(plan_steps(out, args.seed, args.smoke, gpus=args.num_gpus), out)
        finally:
            state["seconds"] = state.get("seconds", 0.0) + time.time() - started
            write_json(out / RECORD, state)
        report(out, args.seed, state["seconds"])


def report(out: Path, seed: int, seconds: float) -> None:
    """Write loss curves and ``results.json`` of a finished run, and print its table."""
    from PADing.visualization import plot_curves

    stage_1, stage_2 = ["loss_ce", "loss_mask", "loss_dice"], ["gan_loss_total_loss", "id_loss_total_loss"]
    curves = {
        "stage 1: Mask2Former, last layer": (out / "pretrain" / "metrics.json", stage_1),
        "stage 2: PADing": (out / "pading" / "metrics.json", stage_2),
    }
    plot_curves(curves, out / "losses.png")
    # A configuration with one evaluation set gives one entry.
    read = [read_json(out / stage / "results.json", "Results") for stage in ("pretrain", "pading")]
    baseline, pading = (next(iter(results.values())) for results in read)
    about = {"seed": seed, "seconds": round(seconds, 1)}
    write_json(out / "results.json", {**about, "baseline": baseline, "pading": pading})
    print(f"\nMini data set, seed {seed}, {seconds / 60:.1f} min in all\n")
    print(table({"Mask2Former, seen classes only": baseline, "PADing": pading}))
    print("\nse/seen, un/unseen: means over seen and unseen classes; hm/hIoU: their harmonic mean.")
    print(f"Images: {out / 'pictures' / 'overview.png'}   loss curves: {out / 'losses.png'}   {out / 'results.json'}")


def _seed(text: str) -> int:
    number = count(text)
    if number >= 2**32:
        raise argparse.ArgumentTypeError(f"must be below 2**32, but is {text}")
    return number


def add_options(
    parser: argparse.ArgumentParser, function: Callable = main, folder: Path = Path("output/quickstart")
) -> None:
    """The flags of the quickstart and of ``packaged-model``: ``function`` runs it, into ``folder`` by default."""
    text = "folder of data and results"
    parser.add_argument("--output", "--out", dest="out", type=Path, default=folder, help=text)
    parser.add_argument("--seed", type=_seed, default=1, help="seed of the data and of both trainings")
    parser.add_argument("--fresh", action="store_true", help="delete the run in --output and start again")
    parser.add_argument("--smoke", action="store_true", help="a test run of a minute or two; it learns nothing")
    parser.set_defaults(function=function)
