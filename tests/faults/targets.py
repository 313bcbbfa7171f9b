"""The commands that faults are tried on, with small data and models, and what their undisturbed runs give."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.faults.commands import Plan, Run

# A segmenter of every part of the full one, with 0.3 million weights.
SMALL = """
    MODEL.DEVICE cpu MODEL.RESNETS.DEPTH 50 MODEL.RESNETS.STEM_OUT_CHANNELS 8 MODEL.RESNETS.WIDTH_PER_GROUP 4
    MODEL.RESNETS.RES2_OUT_CHANNELS 16
    MODEL.SEM_SEG_HEAD.CONVS_DIM 32 MODEL.SEM_SEG_HEAD.MASK_DIM 32 MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS 1
    MODEL.MASK_FORMER.HIDDEN_DIM 32 MODEL.MASK_FORMER.DIM_FEEDFORWARD 32 MODEL.MASK_FORMER.NUM_OBJECT_QUERIES 6
    MODEL.MASK_FORMER.DEC_LAYERS 2 MODEL.MASK_FORMER.TRAIN_NUM_POINTS 112 MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD 0
    INPUT.IMAGE_SIZE 64 INPUT.MIN_SIZE_TEST 64 INPUT.MAX_SIZE_TEST 96 SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 6
    SOLVER.CHECKPOINT_PERIOD 2 SOLVER.WARMUP_ITERS 2 DATALOADER.NUM_WORKERS 0 SEED 3 VERSION 2 TEST.EVAL_PERIOD 3
""".split()
D2ZERO = ["MODEL.D2ZERO.SEMANTIC_DIM", "32"]
PADING = ["MODEL.MASK_FORMER.TRANS_MEMORY_NUM_QUERY", "8"]
DRAW = ["--train", "4", "--val", "3", "--size", "64", "--seed", "3", "--dim", "16"]
PRETRAIN, STAGE2, D2Z = "panoptic-pretrain.yaml", "panoptic-PADing.yaml", "d2zero.yaml"


@dataclass(frozen=True)
class Target:
    """A command that writes below one folder.

    Attributes:
        words: the command line for an output folder.
        again: what to add when it runs again after its end by a fault.
        outcome: what must be equal after every fault, from the folder.
        needs: targets whose folders it reads.
    """

    name: str
    words: Callable[[Path], list]
    again: Sequence[str] = ()
    outcome: Callable[[Path], dict[str, Any]] = dict
    needs: tuple[str, ...] = ()


class Workplace:
    """The folder of a battery: data, and the undisturbed run of each target, made when it is asked for first."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.data = folder / "data"
        self.targets = {target.name: target for target in _targets(self)}
        self._outcomes: dict[str, dict[str, Any]] = {}

    def start(
        self,
        name: str,
        out: Path,
        *more: object,
        again: bool = False,
        log: str = "log",
        logs: Path | None = None,
        **options: Any,
    ) -> Run:
        """Run a target with its output in ``out``; the log is in ``logs``, by default beside it."""
        target = self.targets[name]
        flags = [str(word) for word in more if str(word).startswith("-")] + (list(target.again) if again else [])
        keys = [word for word in more if not str(word).startswith("-")]
        options["environ"] = {"DETECTRON2_DATASETS": str(self.data), **options.get("environ", {})}
        words = target.words(out)
        return Run([*words[:1], *flags, *words[1:], *keys], (logs or out.parent) / f"{log}.txt", **options)

    def reference(self, name: str) -> Path:
        """The folder of the undisturbed run; ``operations(name)`` are its file operations."""
        for need in self.targets[name].needs:
            self.reference(need)
        out = self.folder / "reference" / name
        record = out.parent / f"{name}.json"
        if not record.exists():
            shutil.rmtree(out, ignore_errors=True)  # the battery itself may have been killed here
            out.parent.mkdir(parents=True, exist_ok=True)
            watch, unfinished = out.parent if name == "data" else out, out.parent / f"{name}.tmp.json"
            self.start(name, out, watch=watch, plan=Plan(record=unfinished)).succeed(300)
            if name == "data" and not self.data.exists():
                self.data.mkdir()
                (self.data / "mini").symlink_to(out)
            unfinished.rename(record)
        return out

    def seconds(self, name: str) -> float:
        """Of the processor, which do not depend on what else the machine does."""
        return self._record(name)["seconds"]

    def operations(self, name: str) -> list[str]:
        return self._record(name)["operations"]

    def _record(self, name: str) -> dict[str, Any]:
        return json.loads((self.reference(name).parent / f"{name}.json").read_text())

    def assert_equal(self, name: str, out: Path) -> None:
        """The outcome in ``out`` is that of the undisturbed run."""
        if name not in self._outcomes:
            self._outcomes[name] = self.targets[name].outcome(self.reference(name))
        wanted, found = self._outcomes[name], self.targets[name].outcome(out)
        assert wanted.keys() == found.keys(), f"{sorted(wanted.keys() ^ found.keys())} are in one outcome alone"
        for part, value in wanted.items():
            difference = first_difference(found[part], value, part)
            assert not difference, f"the result differs from the undisturbed run's at {difference}"


def _targets(place: Workplace) -> list[Target]:
    def trained(name: str, script: str, config: str, *opts: object, needs: tuple[str, ...] = ("data",)) -> Target:
        def words(out: Path) -> list:
            given = [opt(place) if callable(opt) else opt for opt in opts]
            return [script, "--config-file", f"configs/mini/{config}", *embeddings(place), "OUTPUT_DIR", out,
                    *SMALL, *given]  # fmt: skip

        return Target(name, words, ("--resume",), training_outcome, needs)

    stage_1 = [PRETRAIN, "SOLVER.EMA.ENABLED", "True", "TEST.BEST.METRIC", "panoptic_seg/PQ"]
    best = [
        "SOLVER.CHECKPOINT_ASYNC",
        "True",
        "SOLVER.CHECKPOINT_KEEP",
        "1",
        "SOLVER.CHECKPOINT_PERIOD",
        "1",
        "TEST.EVAL_PERIOD",
        "0",
    ]
    converted = "MODEL.WEIGHTS", lambda place: place.folder / "reference" / "converted" / "weights.pth"
    return [
        Target("data", lambda out: ["datasets/make_mini_coco.py", "--output", out, *DRAW], (), data_outcome),
        trained("pretraining", "train_net_pretrain.py", *stage_1),
        trained("checkpoints", "train_net_pretrain.py", PRETRAIN, *best),
        trained("stage2", "train_net.py", STAGE2, *PADING, *converted, needs=("data", "converted")),
        trained("d2zero", "train_net.py", D2Z, *D2ZERO),
        Target("converted", lambda out: _convert(place, out), (), converted_outcome, ("pretraining",)),
        Target("evaluation", lambda out: _evaluation(place, out), (), evaluation_outcome, ("data", "d2zero")),
        Target("panoptic", lambda out: _panoptic(place, out), (), evaluation_outcome, ("data", "pretraining")),
    ]


def embeddings(place: Workplace) -> list:
    return ["MODEL.CLASS_EMBEDDINGS", place.data / "mini" / "class_vectors.npz"]


def _convert(place: Workplace, out: Path) -> list:
    source = place.folder / "reference" / "pretraining" / "model_final.pth"
    return ["tools/preprocess_pretrained_weight.py", "--task_name", "panoptic", "--split", "mini", "--input_file",
            source, "--output_file", out / "weights.pth"]  # fmt: skip


def _evaluation(place: Workplace, out: Path) -> list:
    weights = place.folder / "reference" / "d2zero" / "model_final.pth"
    return ["train_net.py", "--eval-only", "--config-file", f"configs/mini/{D2Z}", *embeddings(place), "OUTPUT_DIR",
            out, *SMALL, *D2ZERO, "MODEL.WEIGHTS", weights]  # fmt: skip


def _panoptic(place: Workplace, out: Path) -> list:
    weights = place.folder / "reference" / "pretraining" / "model_final.pth"
    return ["train_net_pretrain.py", "--eval-only", "--config-file", f"configs/mini/{PRETRAIN}", *embeddings(place),
            "OUTPUT_DIR", out, *SMALL, "MODEL.WEIGHTS", weights]  # fmt: skip


# ---- outcomes


def training_outcome(out: Path) -> dict[str, Any]:
    """All states of the last checkpoint, the best weights, and the results."""
    found = {"results.json": json.loads((out / "results.json").read_text())}
    found["model_final.pth"] = torch.load(out / "model_final.pth", weights_only=True)
    # Between two names of the same state, either is right.
    last = torch.load(out / (out / "last_checkpoint").read_text(), weights_only=True)
    found["last_checkpoint"] = last["iteration"]
    if (out / "model_best.pth").exists():
        found["model_best.pth"] = torch.load(out / "model_best.pth", weights_only=True)["model"]
    return found


def evaluation_outcome(out: Path) -> dict[str, Any]:
    # torch.save writes the temporary name into a file.
    objects = {path.name: torch.load(path, weights_only=False) for path in (out / "inference").glob("*.pth")}
    found = {"results.json": json.loads((out / "results.json").read_text()), **hashes(out / "inference"), **objects}
    if "sem_seg_predictions.json" in found:  # it names the images' files, which may lie in another folder
        rows = json.loads((out / "inference" / "sem_seg_predictions.json").read_text())
        found["sem_seg_predictions.json"] = [{**row, "file_name": Path(row["file_name"]).name} for row in rows]
    return found


def converted_outcome(out: Path) -> dict[str, Any]:
    return torch.load(out / "weights.pth", weights_only=True)


def data_outcome(out: Path) -> dict[str, Any]:
    return hashes(out)


def hashes(folder: Path) -> dict[str, Any]:
    """Path below the folder -> checksum of the file."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def first_difference(one: Any, other: Any, place: str) -> str:
    """The first place at which nested values are not bit-equal; "" if there is none."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        return "" if same and torch.equal(one.nan_to_num(7.5), other.nan_to_num(7.5)) else place
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return "" if np.array_equal(one, other) else place
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return f"{place}: {sorted(map(str, one.keys() ^ other.keys()))}"
        return next(filter(None, (first_difference(one[k], other[k], f"{place}.{k}") for k in one)), "")
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        if len(one) != len(other):
            return f"{place} (length)"
        pairs = enumerate(zip(one, other, strict=True))
        return next(filter(None, (first_difference(a, b, f"{place}[{i}]") for i, (a, b) in pairs)), "")
    return "" if one == other or one != one and other != other else f"{place}: {one!r:.80} and {other!r:.80}"


def age(folder: Path) -> None:
    """Make temporary files below a folder two hours old: what is younger may be in use on another machine."""
    for path in folder.rglob("*"):
        if ".tmp" in path.name:
            os.utime(path, (time.time() - 7200,) * 2)


def leftovers(folder: Path) -> list[str]:
    """Temporary files and locks below a folder."""
    found = (path for path in folder.rglob("*") if ".tmp" in path.name or path.name.endswith(".lock"))
    return sorted(os.path.relpath(path, folder) for path in found)
