"""Make the trained mini model that is part of the package, with its report.

    python -m minibench packaged-model                  # about half an hour on two CPU cores
    cp -r output/packaged_model/mini models/            # replace the model of the package

It trains as the quickstart does, but in one process, and with the narrow network of configs/mini/packaged-*.yaml. Then
it rounds the weights to 16 bits, which halves the file, and evaluates again: the metrics of the model are those of the
rounded weights. The report also has those before rounding, and those on the first validation images, which a test
repeats.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from minibench import quickstart
from minibench.methods import TASKS
from minibench.steps import Step
from PADing.engine.output_folder import training_folder
from PADing.errors import UserError
from PADing.files import read_json, write_json
from PADing.yaml_files import read_config_tree

CONFIGS = ("configs/mini/packaged-pretrain.yaml", "configs/mini/packaged-PADing.yaml")
NAME, REPORT = "mini", "report.json"
CHECKED_IMAGES = 24  # of the validation set, evaluated by a test in seconds
LARGEST = 5e6  # bytes of the whole folder


def main(args: argparse.Namespace) -> None:
    """Run the steps that are not done, make the model's folder and print its metrics."""
    started, out = time.time(), args.out.absolute()
    state = quickstart.open_folder(out, {"seed": args.seed, "smoke": args.smoke}, args.fresh)
    weights, model = out / "rounded.safetensors", out / NAME
    with training_folder(out, resume=True, overwrite=False):
        try:
            steps = quickstart.plan_steps(out, args.seed, args.smoke, CONFIGS, processes=0)[:4]  # without the drawing
            quickstart.run_plan(steps, out)
            _round(out / "pading" / "model_final.pth", weights)
            test = ["MODEL.CLASS_EMBEDDINGS", out / "data" / "mini" / "class_vectors.npz", "SEED", args.seed]
            quickstart.run_plan([_evaluation(out, CONFIGS[1], "rounded", ["MODEL.WEIGHTS", weights, *test])], out)
            seconds = state.get("seconds", 0.0) + time.time() - started
            report = _report(out, args.seed, seconds, args.note)
            _share(out / "rounded", weights, model, report)
            quickstart.run_plan([_evaluation(out, model, "checked", ["TEST.MAX_IMAGES", CHECKED_IMAGES])], out)
        finally:
            state["seconds"] = state.get("seconds", 0.0) + time.time() - started
            write_json(out / quickstart.RECORD, state)
        report["checked"] = {"images": CHECKED_IMAGES, "metrics": _metrics(out / "checked")}
        write_json(model / REPORT, report, indent=2)
    size = sum(path.stat().st_size for path in model.iterdir())
    if size > LARGEST:
        raise UserError(
            f"{model} has {size / 1e6:.1f} MB, but {LARGEST / 1e6:.0f} are allowed. Use a narrower network."
        )
    print(f"\n{quickstart.table({'PADing, 16 bits': _read(out / 'rounded')})}\n\n{model}: {size / 1e6:.2f} MB")


def _round(source: Path, target: Path) -> None:
    """Write the weights of a checkpoint with 16 bits each; UserError if one is too large for them."""
    # Imported here: it imports PyTorch.
    from PADing.checkpoint_files import read_checkpoint, write_checkpoint

    content = read_checkpoint(source, "Checkpoint")
    rounded = {name: value.half() if value.is_floating_point() else value for name, value in content["model"].items()}
    if wide := [name for name, value in rounded.items() if value.is_floating_point() and not value.isfinite().all()]:
        raise UserError(f"{source}: {', '.join(wide)} cannot be rounded to 16 bits, which end at 65,504.")
    write_checkpoint(target, {"model": rounded, "iteration": content.get("iteration")})


def _evaluation(out: Path, config: Path | str, name: str, opts: list) -> Step:
    """A step that evaluates into the folder ``out / name``."""
    command = ["train_net.py", "--config-file", config, "--num-gpus", "0", "--eval-only", *opts]
    words = [sys.executable, *map(str, [*command, "OUTPUT_DIR", out / name])]
    step = Step(f"evaluation: {name}", words, out / "log.txt", partial(Path.is_file, out / name / "results.json"))
    step.env, step.usual = {"DETECTRON2_DATASETS": str(out / "data")}, 45
    return step


def _share(training: Path, weights: Path, model: Path, report: dict[str, Any]) -> None:
    # Imported here: it imports PyTorch.
    from PADing.sharing.export import share_model

    machine, (first, second) = report["machine"], report["iterations"]
    text = f"""
        This model is part of the package: `pading demo` uses it, and `from_pretrained("mini")` loads it. It knows drawn
        shapes only. Made by `{report["command"]}` (commit {report["commit"]}) in {report["minutes"]:.0f} minutes on
        {machine["cpu"]}, threads: {machine["threads"]}. {report["note"]} Stage 1 had {first:,} iterations, stage 2
        {second:,}. The weights are rounded to 16 bits. The metrics below are those of the rounded weights, on
        {report["images"]["val"]} images that the training did not see; `{REPORT}` has those before rounding, too.
    """
    share_model(training, model, weights, license_name="mit", description=" ".join(text.split()), overwrite=True)


def _report(out: Path, seed: int, seconds: float, note: str) -> dict[str, Any]:
    """All that is known of the training, but for the metrics on the first images."""
    environment = read_json(out / "pretrain" / "environment.json", "Environment")["runs"][-1]
    data = read_json(out / "data" / "mini" / "mini.json", "Mini data set")["settings"]
    configs = [read_config_tree(out / stage / "config.yaml") for stage in ("pretrain", "pading")]
    return {
        "command": f"python -m minibench packaged-model --seed {seed}",
        "commit": environment["commit"],
        "seed": seed,
        "images": {key: data[key] for key in ("train", "val", "size", "split")},
        "iterations": [config["SOLVER"]["MAX_ITER"] for config in configs],
        "minutes": round(seconds / 60, 1),
        "machine": {key: environment[key] for key in ("cpu", "cpus", "threads", "python", "packages")},
        "note": note,
        "metrics": _metrics(out / "rounded"),
        "metrics before rounding": _metrics(out / "pading"),
    }


def _read(folder: Path) -> dict[str, Any]:
    # A configuration with one evaluation set gives one entry.
    return next(iter(read_json(folder / "results.json", "Results").values()))


def _metrics(folder: Path) -> dict[str, dict[str, float]]:
    """Means over seen and unseen classes, and their harmonic mean, by task."""
    results = _read(folder)
    return {task.key: {key: results[task.key][key] for key in task.metrics} for task in TASKS}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    quickstart.add_options(parser, main, Path("output/packaged_model"))
    parser.add_argument("--note", default="", metavar="TEXT", help="a sentence for the report, such as how busy it was")
