"""The val2017 protocol: zero-shot training and evaluation with COCO's 5,000 validation images alone.

    python datasets/prepare_coco_val2017.py prepare            # check the downloads, make lists and annotation
    python datasets/prepare_coco_val2017.py run                # stage 1, conversion, PADing, D2Zero: 48/17 instances
    python datasets/prepare_coco_val2017.py run --task panoptic
    python datasets/prepare_coco_val2017.py report

docs/val2017.md says what to download and where it must lie. Run the same command again to continue. Config overrides at
the end of `run` go to every training.
"""

import argparse
import logging
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PADing.command_line import STATUS_FAILED, CommandParser, count, run_command
from PADing.data.preparation import add_workers_flag
from PADing.errors import UserError
from PADing.files import REPOSITORY

TASKS = ("instance", "panoptic")
SPLITS = {"instance": "val2017_48_17", "panoptic": "val2017_119_14"}
# Metrics of the report: title, entry of results.json, seen, unseen, harmonic mean.
COLUMNS = (
    ("PQ", "panoptic_seg", "PQ_se", "PQ_un", "PQ_hm"),
    ("IoU", "sem_seg", "seen_IoU", "unseen_IoU", "hIoU"),
    ("AP50", "segm", "AP50_seen", "AP50_unseen", "AP50_hm"),
)
GRACE = 60.0  # seconds that an interrupted step has to save
logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="prepare|run|report")
    prepare = commands.add_parser("prepare", help="check the downloads, make lists and annotation")
    prepare.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, help="what to prepare (default: both)")
    prepare.add_argument("--subset", action="store_true", help="take the images that are there: for a trial")
    prepare.add_argument("--force", action="store_true", help="replace lists and annotation of another preparation")
    add_workers_flag(prepare)
    prepare.set_defaults(function=_prepare)
    run = commands.add_parser("run", help="train and evaluate all methods of a task")
    run.add_argument("--task", choices=TASKS, default="instance", help="the task")
    run.add_argument("--num-gpus", type=count, default=1, metavar="N", help="0: use the CPU")
    weights = "ImageNet weights of the backbone, for machines without network; '': random ones, for a trial"
    run.add_argument("--backbone", metavar="FILE", help=weights)
    run.add_argument("--print-only", action="store_true", help="print the commands, and run none")
    run.set_defaults(function=_run)
    report = commands.add_parser("report", help="print the metrics of finished trainings as a table")
    report.set_defaults(function=_report)
    for command in (run, report):
        command.add_argument(
            "--output", type=Path, default=Path("output/val2017"), metavar="FOLDER", help="of all runs"
        )
    run.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config overrides of every training")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    return run_command(args.function, args)


def _prepare(args: argparse.Namespace) -> None:
    from PADing.data.splits import dataset_root, load_split
    from PADing.data.val2017 import FOLDER, IMAGES, LISTS, make_lists, read_panoptic, write_parts
    from PADing.files import read_json, write_json

    coco, folder = Path(dataset_root(), "coco"), REPOSITORY / "datasets" / "splits" / "val2017"
    files = {task: folder / f"{name}.yaml" for task, name in SPLITS.items()}
    lists, instances = make_lists(coco, [load_split(files[task]) for task in TASKS], args.subset)
    # Read before anything is written.
    panoptic = read_panoptic(coco, lists) if "panoptic" in args.tasks else None
    output = coco / FOLDER
    if (output / LISTS).exists():
        if read_json(output / LISTS, "Lists of val2017").get("sha256") != lists["sha256"] and not args.force:
            raise UserError(f"{output / LISTS} was made from other images. Add --force to replace it.")
    write_json(output / LISTS, lists)
    write_parts(instances, lists, output, "instances")
    jobs = []
    if "instance" in args.tasks:
        sources = [f"--{part}-json={output / f'instances_{part}.json'}" for part in ("train", "val")]
        jobs.append(["datasets/prepare_coco_zsi.py", f"--split-file={files['instance']}", *sources, "--force"])
    if panoptic is not None:
        write_parts(panoptic, lists, output, "panoptic")
        places = [f"--json={output / 'panoptic_val.json'}", f"--panoptic-root={coco / 'panoptic_val2017'}"]
        places += [f"--output={output / 'panoptic_semseg_val'}", f"--workers={args.workers}"]
        script = "datasets/prepare_coco_semantic_annos_from_panoptic_annos.py"
        jobs.append([script, f"--split-file={files['panoptic']}", *places])
    for script, *words in jobs:
        _call([sys.executable, str(REPOSITORY / script), *words])
    print(f"{output}: {len(lists['train']):,} training and {len(lists['val']):,} validation images")
    print(f"SHA-256 of the lists: {lists['sha256']}")
    if not lists["complete"]:
        print(
            f"This is a trial: the protocol has {IMAGES:,} images, so metrics are not comparable with those of others."
        )


def _call(words: list[str]) -> None:
    print("$", shlex.join(words), flush=True)
    process = subprocess.Popen(words)
    try:
        status = process.wait()
    except KeyboardInterrupt:
        # The terminal has sent Ctrl-C to it, too: a training saves a checkpoint before it ends.
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
        raise
    if status:
        raise UserError(f"This step ended with status {status}: {shlex.join(words[1:3])} ... Its message is above.")


def steps(
    task: str, output: Path, gpus: int, opts: Sequence[str], backbone: str | None = None
) -> list[tuple[Path, list[str]]]:
    """The commands of a task in order: the file that each one makes, and its words."""
    start = [] if backbone is None else ["MODEL.WEIGHTS", backbone]

    def training(script: str, config: str, name: str, *more: str) -> tuple[Path, list[str]]:
        words = [script, "--config-file", f"configs/val2017/{config}.yaml", "--num-gpus", str(gpus), "--resume"]
        return output / name / "model_final.pth", [*words, *more, "OUTPUT_DIR", str(output / name), *opts]

    first, _ = stage_1 = training("train_net_pretrain.py", f"{task}-pretrain", f"{task}_pretrain", *start)
    converted = first.with_name("converted.pth")
    convert = ["tools/preprocess_pretrained_weight.py", "--task_name", task, "--input_file", str(first)]
    convert += ["--output_file", str(converted), "--split", f"datasets/splits/val2017/{SPLITS[task]}.yaml"]
    stage_2 = training("train_net.py", f"{task}-PADing", f"{task}_PADing", "MODEL.WEIGHTS", str(converted))
    found = [stage_1, (converted, convert), stage_2]
    return [*found, training("train_net.py", "d2zero", "d2zero", *start)] if task == "instance" else found


def _run(args: argparse.Namespace) -> None:
    for made, (script, *words) in steps(args.task, args.output, args.num_gpus, args.opts, args.backbone):
        command = [sys.executable, str(REPOSITORY / script), *words]
        if args.print_only:
            print(shlex.join(["python", script, *words]))
        elif made.is_file() and (made.name == "converted.pth" or (made.parent / "results.json").is_file()):
            print(f"{made} is finished.")
        else:
            _call(command)
    if not args.print_only:
        _report(args)


def _report(args: argparse.Namespace) -> int:
    rows = [row for path in sorted(args.output.glob("*/results.json")) for row in _rows(path)]
    if not rows:
        print(f"{args.output} holds no results yet. Train with: python datasets/prepare_coco_val2017.py run")
        return STATUS_FAILED
    head = ["training", "set", "metric", "seen", "unseen", "harmonic mean"]
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")
    return 0


def _rows(path: Path) -> list[list[str]]:
    from PADing.files import read_json

    found = []
    for data_set, results in read_json(path, "Results").items():
        for title, entry, *keys in COLUMNS if isinstance(results, dict) else ():
            metrics: Any = results.get(entry)
            if isinstance(metrics, dict):
                values: list[Any] = [metrics.get(key) for key in keys]
                shown = [f"{v:.2f}" if type(v) in (int, float) and 0 <= v <= 100 else "" for v in values]
                found.append([path.parent.name, data_set, title, *shown])
    return found
