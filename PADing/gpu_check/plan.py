"""The steps of the check, as commands, for a GPU or, at a tiny size, for the CPU."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PADing.files import write_json

MINI = {
    "pretraining": "configs/mini/panoptic-pretrain.yaml",
    "PADing": "configs/mini/panoptic-PADing.yaml",
    "D2Zero": "configs/mini/d2zero.yaml",
}
FULL = {
    "Mask2Former": "configs/panoptic-segmentation/pretrain.yaml",
    "PADing": "configs/panoptic-segmentation/PADing.yaml",
}
PRECISIONS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float16": {"opts": ["SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", "float16"]},
    "bfloat16": {"opts": ["SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", "bfloat16"]},
    "compile": {"compile": True},
}
ON_CPU = {"CPU, float32": {"opts": ["MODEL.DEVICE", "cpu"]}}


@dataclass
class Step:
    """A command, the file of its result, and the seconds that it may take; ``reason``: why it is not run.

    ``command`` without the interpreter. ``before``: words before the interpreter, such as those of a sanitizer.
    """

    name: str
    command: list[str]
    result: Path
    limit: float
    before: list[str] = field(default_factory=list)
    reason: str = ""

    def words(self) -> list[str]:
        """The whole command line."""
        return [*self.before, sys.executable, *self.command]


def data_step(out: Path, gpu: bool) -> Step:
    """Draws the pictures that the trainings use."""
    numbers = ["--train", "240", "--val", "40"] if gpu else ["--train", "12", "--val", "8"]
    folder = out / "data" / "mini"
    command = ["datasets/make_mini_coco.py", "--out", str(folder), "--seed", "1", *numbers]
    return Step("data", command, folder / "mini.json", 120)


def plan(names: Sequence[str], out: Path, gpu: bool) -> list[Step]:
    """The steps of these names, in order; writes the requests of the trainings into ``out``."""
    return [_step(name, out, gpu) for name in names]


def _step(name: str, out: Path, gpu: bool) -> Step:
    device, result = "cuda" if gpu else "cpu", out / f"{name}.json"
    operator = ["-m", "PADing.gpu_check.operator"]
    if name in ("build", "parity", "nccl"):
        return Step(name, [*operator, name, device, str(result)], result, 240 if name == "build" else 60)
    if name == "sanitizer":
        tool = shutil.which("compute-sanitizer")
        reason = "" if gpu and tool else "compute-sanitizer is not on the PATH" if gpu else "it needs a GPU"
        before = [tool or "", "--tool", "memcheck", "--error-exitcode", "9"]
        return Step(name, [*operator, "parity", device, str(result)], result, 120, before, reason)
    if name == "operator":
        sizes = ["--rounds", "10", "--seconds", "3"]
        if not gpu:
            sizes = ["--rounds", "3", "--seconds", "1", "--case", "512x512", "--dtype", "float32"]
        command = ["tools/benchmark.py", "msda", "--device", device, *sizes, "--output", str(result)]
        return Step(name, command, result, 120)
    if name == "quickstart":
        command = ["-m", "minibench", "quickstart", "--output", str(out / "quickstart"), "--seed", "1"]
        command += ["--num-gpus", "1"] if gpu else ["--smoke"]
        return Step(name, command, out / "quickstart" / "results.json", 600)
    request = _full_size(gpu) if name == "full" else _mini(name, gpu)
    path = out / f"{name}.request.json"
    write_json(path, request, indent=2)
    return Step(name, ["-m", "PADing.gpu_check.workload", str(path), str(result)], result, 150)


def _mini(name: str, gpu: bool) -> dict[str, Any]:
    """Both devices start from the same weights and see the same pictures; sampled points differ."""
    variants = {**PRECISIONS, **ON_CPU} if gpu else {name: PRECISIONS[name] for name in ("float32", "bfloat16")}
    opts = ["MODEL.DEVICE", "cuda"] if gpu else ["MODEL.DEVICE", "cpu", "SOLVER.IMS_PER_BATCH", 2]
    opts += ["MODEL.WEIGHTS", "", "OUTPUT_DIR", "."]
    return _request(MINI[name], opts, 20 if gpu else 2, variants, detail=False)


def _full_size(gpu: bool) -> dict[str, Any]:
    """The network and the image size of COCO on drawn pictures, because their contents do not change the time."""
    data = ["DATASETS.TRAIN", "('mini_train_panoptic',)", "DATASETS.TEST", "('mini_val_panoptic',)"]
    data += ["MODEL.CLASS_EMBEDDINGS", "datasets/mini/class_vectors.npz", "MODEL.WEIGHTS", "", "OUTPUT_DIR", "."]
    size = ["MODEL.DEVICE", "cuda", "SOLVER.IMS_PER_BATCH", 4, "DATALOADER.NUM_WORKERS", 8]
    if not gpu:
        size = ["MODEL.DEVICE", "cpu", "SOLVER.IMS_PER_BATCH", 1, "DATALOADER.NUM_WORKERS", 0]
        size += ["INPUT.IMAGE_SIZE", 64, "INPUT.MIN_SIZE_TEST", 64, "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", 10]
    variants = PRECISIONS if gpu else {"float32": {}}
    return _request(FULL["Mask2Former"], [*data, *size], 12 if gpu else 2, variants, detail=True)


def _request(config: str, opts: list, iterations: int, variants: dict, detail: bool) -> dict[str, Any]:
    return {"config_file": config, "opts": opts, "iterations": iterations, "variants": variants, "detail": detail}
