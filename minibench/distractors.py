"""Evaluate runs on the mini data set again, with further class names that no image shows.

    python -m minibench distractors output/minibench                    # all finished runs that can: distractors.json
    python -m minibench distractors output/minibench --methods pading,d2zero --numbers 0,100,1000
    python -m minibench distractors output/quickstart/pading --data output/quickstart/data      # one run: a table

The vectors of the distractors come from the generator of the data set's own class vectors: pairs of parts that are no
class, of the classes' parts and of 50 other ones. Predictions of distractors are wrong (TEST.DISTRACTORS). The metrics
of one run are also written to RUN/distractors/distractors.json, those of a benchmark to OUTPUT/distractors.json, from
which the report makes a table. Runs that are in that file with all numbers are not evaluated again.
"""

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from minibench.methods import TASKS
from PADing.command_line import positive
from PADing.data.mini import MOST_DISTRACTORS, distractor_embeddings
from PADing.errors import UserError
from PADing.files import read_json, write_json

NUMBERS = (0, 100, 1000)
FOLDER, TABLE = "distractors", "distractors.json"


def evaluate_with_distractors(run: Path, data: Path, numbers: Sequence[int], max_images: int = 0) -> dict[str, dict]:
    """The metrics of a run by number of distractors; also written to ``run/distractors``.

    The data sets of its split are read from ``data`` from then on.

    Args:
        run: output folder of a training on the mini data set, with ``config.yaml`` and ``model_final.pth``.
        data: its ``$DETECTRON2_DATASETS``.
        numbers: of distractors.
        max_images: see ``TEST.MAX_IMAGES``.

    Raises:
        UserError: files are missing, or the model takes no vocabulary.
    """
    # Imported here, because they import PyTorch or OpenCV.
    from PADing.config import load_config
    from PADing.data.embeddings import embedding_source, save_class_embeddings
    from PADing.data.mini_files import MANIFEST
    from PADing.data.registration import register_split, registered_split
    from PADing.engine.trainer import Trainer
    from PADing.inference import load_model

    root = next((path.parent for path in sorted(data.glob(f"mini*/{MANIFEST}"))), data / "mini")
    for path in (run / "config.yaml", run / "model_final.pth", root / MANIFEST):
        if not path.is_file():
            raise UserError(
                f"{path} does not exist. Name the output folder of a training on the mini data, and --data."
            )
    settings = read_json(root / MANIFEST, "Mini data set")["settings"]
    words = run / FOLDER / "words.npz"
    own = root / "class_vectors.npz"
    opts = ["MODEL.WEIGHTS", str(run / "model_final.pth"), "MODEL.DEVICE", "cpu", "MODEL.CLASS_EMBEDDINGS", str(own)]
    if any(numbers):
        found, vectors = distractor_embeddings(MOST_DISTRACTORS, *(settings[key] for key in ("dim", "noise", "seed")))
        entries = np.array([("" if c.isthing else "stuff: ") + c.name for c in found], dtype=np.str_)
        save_class_embeddings(
            words, [c.name for c in found], vectors, embedding_source(own)[0], (), {"entries": entries}
        )
    results = {}
    model = None
    for number in numbers:
        folder = run / FOLDER / str(number)
        further = ["TEST.DISTRACTORS", str(words), "TEST.NUM_DISTRACTORS", number] if number else []
        further += ["OUTPUT_DIR", str(folder), "TEST.MAX_IMAGES", max_images, "TEST.WRITE_PNG", "False"]
        cfg = load_config(run / "config.yaml", [*opts, *further])
        for split in filter(None, {registered_split(name) for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)}):
            register_split(split, root=str(data))
        model = model or load_model(cfg)
        metrics = Trainer.test(cfg, model)
        results[str(number)] = {task: metrics[task] for task in (t.key for t in TASKS) if task in metrics}
    write_json(run / FOLDER / TABLE, results, indent=2)
    return results


def table(results: Mapping[str, Mapping]) -> str:
    """The metrics as a Markdown table, a row for each number of distractors."""
    tasks = [task for task in TASKS if any(task.key in metrics for metrics in results.values())]
    heads = [f"{task.metric} {kind}" for task in tasks for kind in ("seen", "unseen", "HM")]
    lines = ["| distractors | " + " | ".join(heads) + " |", "|" + "---|" * (1 + len(heads))]
    for number, metrics in results.items():
        cells = [f"{metrics[task.key][key]:.1f}" for task in tasks for key in task.metrics]
        lines.append(f"| {number} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a benchmark's output folder, or one run")
    parser.add_argument("--data", type=Path, help="of one run: its $DETECTRON2_DATASETS, the folder above mini/")
    parser.add_argument("--methods", type=_names, metavar="A,B,...", help="of a benchmark (default: main, baselines)")
    parser.add_argument("--numbers", type=numbers_of, default=NUMBERS, help="of distractors (default: 0,100,1000)")
    parser.add_argument("--images", type=positive, metavar="N", help="evaluate on the first N images only")
    parser.add_argument("--overwrite", action="store_true", help="of a benchmark: evaluate runs in the file again")
    parser.set_defaults(function=main)


def main(args: argparse.Namespace) -> None:
    """Evaluate, and print the table."""
    logging.getLogger("PADing").setLevel(logging.WARNING)
    folder, images = args.folder.absolute(), args.images or 0
    if not _is_benchmark(folder):
        if args.data is None:
            raise UserError(
                f"{folder} is no benchmark's output: it has no results.json of one. For one run, name its folder and "
                "--data."
            )
        print(table(evaluate_with_distractors(folder, args.data.absolute(), args.numbers, images)))
        return
    if args.data is not None:
        raise UserError(f"{folder} is a benchmark's output and has its data. Leave --data out.")
    from minibench.distractor_runs import evaluate_runs

    for line in evaluate_runs(folder, args.methods, args.numbers, images, args.overwrite):
        print(line, flush=True)


def _is_benchmark(folder: Path) -> bool:
    """Whether a folder has the ``results.json`` of a benchmark; that of a run or of the quickstart is another one."""
    path = folder / "results.json"
    return path.is_file() and "methods" in read_json(path, "Results")


def numbers_of(text: str) -> tuple[int, ...]:
    """Numbers of distractors, such as "0,100"; for a parser."""
    try:
        numbers = tuple(dict.fromkeys(int(part) for part in text.split(",")))
        if min(numbers) < 0 or max(numbers) > MOST_DISTRACTORS:
            raise ValueError
    except ValueError:
        wanted = f"whole numbers from 0 to {MOST_DISTRACTORS} such as 0,100,1000"
        raise argparse.ArgumentTypeError(f"must be {wanted}, but is {text!r}") from None
    return numbers


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
