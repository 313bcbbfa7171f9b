"""Train the toy CLIP: a small image and text encoder in open_clip's format, for the mini data set's pictures and words.

    python -m minibench toy-clip                                   # output/toy_clip, about 4 minutes on a free CPU core
    python -m minibench toy-clip --split hard --seed 3 --output output/toy_clip_hard
    python -m minibench toy-clip --iterations 9 --scenes 60 --output output/try  # in a minute; it learns nothing

It learns from drawn scenes of the split's seen classes and their captions. No picture shows, and no caption names, an
unseen class. The folder has open_clip_config.json and open_clip_model.safetensors, which
open_clip.create_model_and_transforms("local-dir:FOLDER") loads, class_vectors.npz with the vectors of all classes
(MODEL.CLASS_EMBEDDINGS), and report.json with the accuracies on pictures of its own.
"""

import argparse
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from PADing.command_line import count, positive
from PADing.data.mini import UNSEEN
from PADing.errors import UserError
from PADing.files import read_json, replacing_folder, write_json

ITERATIONS, SCENES, CHECKED_SCENES = 500, 900, 200
REPORT, VECTORS = "report.json", "class_vectors.npz"
KIND = "toy CLIP"  # in the report, which marks a folder that may be replaced


def make_toy_clip(
    out: Path,
    split: str = "compositional",
    seed: int = 1,
    iterations: int = ITERATIONS,
    scenes: int = SCENES,
    checked_scenes: int = CHECKED_SCENES,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train a toy CLIP into the folder ``out``, which appears when it is complete; returns its report.

    With the same arguments, number of threads and machine, the weights are the same.

    Args:
        out: the folder.
        split: a key of ``PADing.data.mini.UNSEEN``; its unseen classes are held out.
        seed: of pictures, captions and first weights.
        iterations: of the training, at least 1.
        scenes: drawn pictures to learn from. checked_scenes: others, of all classes, for the report.
        overwrite: replace a toy CLIP that is there.

    Raises:
        UserError: a wrong argument; ``out`` exists; open_clip cannot be imported.
    """
    _check(out, seed, iterations, scenes, checked_scenes, overwrite)
    # Imported here, because they import PyTorch.
    import numpy as np
    import torch

    from minibench.toy_clip import captions, measure, network, pictures, training
    from PADing.data.clip_models import open_clip_library
    from PADing.data.mini import categories

    classes, unseen = captions.learned_classes(split), captions.seen_and_unseen(split)[1]
    started, display = time.time(), _Lines()
    training_set, check_set = (np.random.default_rng([seed, number]) for number in (5, 7))
    with replacing_folder(out) as building:  # now, so that a place where nothing can be written ends it at once
        display.line(f"{KIND}: drawing {scenes} scenes")
        drawn = pictures.draw_scenes(training_set, scenes, classes)
        model = network.build(seed)
        training.train(model, drawn, captions.Captions(classes), iterations, seed, display.of_training(iterations))
        seconds = round(time.time() - started, 1)
        held_out = pictures.draw_scenes(check_set, checked_scenes, categories())
        network.write_folder(building, model)
        accuracy = measure.measure_folder(building, held_out, unseen)
        report = {
            "kind": KIND,
            "command": shlex.join(_command(split, seed, iterations, scenes)),
            **{"split": split, "seed": seed, "iterations": iterations, "scenes": scenes, "seconds": seconds},
            "machine": {
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "open_clip": open_clip_library().__version__,
                "system": platform.platform(terse=True),
            },
            "last losses": [round(loss, 3) for loss in display.losses[-5:]],
            "held-out scenes": checked_scenes,
            "accuracy": accuracy,
        }
        write_json(building / REPORT, report, indent=1)
        measure.write_class_vectors(building, out, building / VECTORS)
    return report


def write_stand_in(folder: Path) -> None:
    """Write the configuration of a toy CLIP without its weights, for configs that are read before it is trained."""
    from minibench.toy_clip.network import write_config  # imports PyTorch

    write_config(folder)


def table(report: dict[str, Any]) -> str:
    """The accuracies of a report as text, one line for each kind of picture."""
    lines = [f"{'zero-shot accuracy, %':28}{'seen':>8}{'unseen':>8}{'chance':>8}"]
    for way, kinds in report["accuracy"].items():
        for kind, found in kinds.items():
            values = ("-" if v is None else f"{v:.1f}" for v in (found["seen"], found["unseen"], found["chance"]))
            lines.append(f"{f'{kind}, {way}':28}" + "".join(f"{value:>8}" for value in values))
    return "\n".join(lines)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    parser.add_argument("--output", "--out", dest="out", type=Path, default=Path("output/toy_clip"), help="new folder")
    parser.add_argument("--split", choices=sorted(UNSEEN), default="compositional", help="which classes are held out")
    parser.add_argument("--seed", type=count, default=1, help="of pictures, captions and first weights")
    parser.add_argument("--iterations", type=positive, default=ITERATIONS, help="of the training")
    parser.add_argument("--scenes", type=positive, default=SCENES, help="drawn pictures to learn from")
    checked = "other drawn pictures, for the report"
    parser.add_argument("--checked-scenes", type=positive, default=CHECKED_SCENES, help=checked)
    parser.add_argument("--overwrite", action="store_true", help="replace the toy CLIP in --output")
    parser.set_defaults(function=main)


def main(args: argparse.Namespace) -> None:
    """Train, and print the accuracies."""
    sizes = args.iterations, args.scenes, args.checked_scenes
    report = make_toy_clip(args.out, args.split, args.seed, *sizes, args.overwrite)
    print(f"\n{table(report)}\n\n{args.out}: {report['seconds'] / 60:.1f} min")


def _check(out: Path, seed: int, iterations: int, scenes: int, checked_scenes: int, overwrite: bool) -> None:
    if min(iterations, scenes, checked_scenes) < 1:
        raise UserError(f"There must be at least one iteration and one scene, but got {iterations} and {scenes}.")
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed must be from 0 to 2**63 - 1, but is {seed}.")
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"--output {out} is a file. Name a folder.")
    if not any(out.iterdir()):
        return
    report = out / REPORT
    ours = report.is_file() and read_json(report, "Report of the toy CLIP").get("kind") == KIND
    if not ours:
        raise UserError(f"--output {out} has other files and no toy CLIP. Name another folder.")
    if not overwrite:
        raise UserError(f"--output {out} has a {KIND} already. Add --overwrite to replace it, or name another folder.")


def _command(split: str, seed: int, iterations: int, scenes: int) -> list[str]:
    values = {"--split": split, "--seed": seed, "--iterations": iterations, "--scenes": scenes}
    return ["python", "-m", "minibench", "toy-clip", *(str(word) for pair in values.items() for word in pair)]


class _Lines:
    """Prints a line now and then, and keeps the losses."""

    PERIOD = 15.0  # seconds

    def __init__(self) -> None:
        self.losses: list[float] = []
        self._last = time.time()

    def line(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def of_training(self, iterations: int):
        """A function that is called with the loss of each iteration."""
        started = time.time()

        def step(loss: float) -> None:
            self.losses.append(loss)
            done, now = len(self.losses), time.time()
            if now - self._last > self.PERIOD or done == iterations:
                self._last = now
                left = (now - started) / done * (iterations - done)
                self.line(f"{done}/{iterations} iterations | loss {loss:.2f} | {left / 60:.1f} min left")

        return step
