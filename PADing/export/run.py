"""Exports a model: checks it, records it, writes the file, compares the file with the model, and keeps it if equal."""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode

from PADing.errors import UserError
from PADing.export import files
from PADing.export.check import TOLERANCE, Difference, differences, latencies
from PADing.export.description import describe
from PADing.export.program import LEAST_SIDE, Program, check_outputs, own_results
from PADing.files import existing_folder, replacing
from PADing.inference import load_model

logger = logging.getLogger(__name__)

# Batch, height and width of the images that a file is compared with; none is the recorded size.
SIZES = ((1, 64, 96), (3, 100, 75), (2, 160, 200))
GREATEST_SIDE = 4096


class Report(NamedTuple):
    """What an export has measured.

    Attributes:
        path: the file.
        megabytes: its size.
        differences: of each output, over all compared sizes.
        latencies: seconds for one image of ``size`` (H, W) with ``threads`` threads, by program; empty if not measured.
    """

    path: Path
    megabytes: float
    differences: dict[str, Difference]
    latencies: dict[str, float]
    size: tuple[int, int]
    threads: int


def export_model(
    cfg: CfgNode,
    path: str | os.PathLike,
    outputs: Sequence[str] = ("raw",),
    sampling: str = "grid_sample",
    opset: int = 18,
    tolerance: float = TOLERANCE,
    rounds: int = 5,
    size: tuple[int, int] | None = None,
    overwrite: bool = False,
) -> Report:
    """Write a model as an ONNX file or a program of torch.export, in float32 for the CPU.

    Args:
        cfg: config with ``MODEL.WEIGHTS``, as for ``PADing.inference.Predictor``.
        path: a file that ends with ``.onnx`` or ``.pt2``; it appears only when it has passed the comparison.
        outputs: some of ``PADing.export.program.OUTPUTS``.
        sampling: ``"grid_sample"``, or ``"gather"`` for a file without that operator.
        opset: of ONNX's operators, one of ``PADing.export.files.OPSETS``.
        tolerance: the largest absolute error of a number.
        rounds: runs of each program whose median is its latency; 0: measure none.
        size: (H, W) for the latency; None: the config's size for evaluation.
        overwrite: replace the file.

    Raises:
        UserError: as ``load_model``; wrong arguments; a model that cannot be exported; a file that differs from it.
    """
    path = Path(path)
    greatest = max(GREATEST_SIDE, int(cfg.INPUT.MAX_SIZE_TEST))
    _check_arguments(path, opset, overwrite)
    height, width = size or _evaluation_size(cfg)
    if not LEAST_SIDE <= min(height, width) <= max(height, width) <= greatest:
        raise UserError(f"--latency-size {height} {width} must be from {LEAST_SIDE} to {greatest}.")
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    cfg.freeze()
    model = load_model(cfg)
    program = Program(model, outputs).eval()
    check_own_results(model, tolerance)
    is_onnx = path.suffix == files.ONNX
    logger.info("Recording the model's operations. A large model takes minutes.")
    exported = files.trace(program, sampling, greatest)
    description = describe(cfg, program, opset if is_onnx else None, sampling, greatest)
    threads = torch.get_num_threads()
    with replacing(path) as temporary:
        if is_onnx:
            logger.info("Translating to ONNX.")
            files.write_onnx(temporary, exported, program.names, description, opset)
            loaded = files.load_onnx(temporary, threads)
        else:
            files.write_torch(temporary, exported, description)
            loaded = files.load_torch(temporary, program.names)
        found = _compare(program, loaded, tolerance)
        for name, difference in found.items():
            logger.info("%s: %s", name, difference)
        _refuse_differences(found, tolerance, path)
        megabytes = temporary.stat().st_size / 1e6
        times: dict[str, float] = {}
        if rounds:
            images = next(_images([(1, height, width)]))
            runtime = "ONNX Runtime" if is_onnx else "torch.export"
            times = latencies({"PyTorch": program.eager, runtime: loaded}, images, rounds)
    return Report(path, megabytes, found, times, (height, width), threads)


def _check_arguments(path: Path, opset: int, overwrite: bool) -> None:
    if path.suffix not in (files.ONNX, files.TORCH):
        raise UserError(f"--output {path} must end with {files.ONNX} or {files.TORCH}, which choose the format.")
    if path.is_file() and not overwrite:
        raise UserError(f"--output {path} exists. Choose another name, or add --overwrite.")
    _check_folder(path)
    if path.suffix == files.ONNX:
        if opset not in files.OPSETS:
            first, last = files.OPSETS[0], files.OPSETS[-1]
            raise UserError(f"--opset {opset} is not one of {first} to {last}, which the exporter writes.")
        files.check_packages()


def _check_folder(path: Path) -> None:
    """UserError if the file cannot be written: nobody wants to learn that after minutes."""
    folder = existing_folder(path.absolute().parent)
    if path.exists() and not path.is_file():
        raise UserError(f"--output {path} is a folder or a device. Name a file.")
    if not folder.is_dir():
        raise UserError(f"--output {path} cannot be written: {folder} is a file. Choose another folder.")
    if not os.access(folder, os.W_OK):
        raise UserError(f"--output {path} cannot be written: no permission for {folder}. Choose another folder.")


def check_own_results(model: Any, tolerance: float = TOLERANCE) -> None:
    """UserError if a model's own inference gives other results than ``predict`` and the exported post-processing do.

    So a method that overrides ``forward``, ``infer`` or one of the results does not get an export of something else.
    """
    outputs = own_results(model)
    if not outputs:
        return
    check_outputs(model, outputs)
    program = Program(model, outputs).eval()
    images = next(_images([(1, 80, 112)]))
    found = program.eager(images)
    with torch.no_grad():
        own = model([{"image": images[0], "height": 80, "width": 112}])[0]
    expected = dict(found)
    if "sem_seg" in own:
        expected["semantic_scores"] = own["sem_seg"][None]
    if "instances" in own:
        expected |= _padded(own["instances"], found)
    if "panoptic_seg" in own:
        segments, infos = own["panoptic_seg"]
        labels = torch.full_like(found["panoptic_labels"], -1)
        for place, info in enumerate(infos):
            labels[0, place] = info["category_id"]
        expected |= {"panoptic_map": segments[None], "panoptic_labels": labels}
    wrong = [n for n, d in differences(expected, found, tolerance).items() if not d.passes(tolerance)]
    if wrong:
        raise UserError(
            f"{type(model).__name__} computes other results ({', '.join(wrong)}) than its exported form would. If it "
            "changes logits, do so in predict(images); if it chooses instances in its own way, in instance_rule()."
        )


def _padded(instances: Any, found: dict) -> dict:
    """The model's instances, by falling score, in the form of the exported outputs."""
    expected = {name: torch.zeros_like(found[name]) for name in found if name.startswith("instance_")}
    expected["instance_labels"] -= 1
    order = instances.scores.argsort(descending=True)
    n = len(order)
    for name, value in (
        ("scores", instances.scores), ("labels", instances.pred_classes),
        ("boxes", instances.pred_boxes.tensor), ("masks", instances.pred_masks > 0),
    ):  # fmt: skip
        expected[f"instance_{name}"][0, :n] = value[order]
    real = expected["instance_labels"] >= 0  # what fills up the tensors has no meaning
    for name in ("instance_masks", "instance_boxes"):
        expected[name][~real] = found[name][~real]
    return expected


def _images(sizes: Sequence[tuple[int, int, int]]) -> Iterator[torch.Tensor]:
    """Random smooth images (B, 3, H, W) on the scale 0..255."""
    generator = torch.Generator().manual_seed(0)
    for batch, height, width in sizes:
        coarse = torch.rand(batch, 3, max(2, height // 16), max(2, width // 16), generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
        yield (smooth * 235 + 20 * torch.rand(smooth.shape, generator=generator)).round()


def _compare(program: Program, loaded: files.Function, tolerance: float) -> dict[str, Difference]:
    found: dict[str, Difference] = {}
    for images in _images(SIZES):
        for name, difference in differences(program.eager(images), loaded(images), tolerance).items():
            found[name] = found.get(name, Difference()).merge(difference)
    return found


def _refuse_differences(found: dict[str, Difference], tolerance: float, path: Path) -> None:
    wrong = [f"{name} ({difference})" for name, difference in found.items() if not difference.passes(tolerance)]
    if wrong:
        raise UserError(
            f"{path} is not kept, because it differs from the model by more than --tolerance {tolerance:g}: "
            f"{', '.join(wrong)}. Logits of large models may need 1e-3; a larger difference is a defect worth a report."
        )


def _evaluation_size(cfg: CfgNode) -> tuple[int, int]:
    """An image of 3 : 4 at the size of evaluation."""
    short, longest = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    short = int(short[0] if isinstance(short, (list, tuple)) else short) or 480
    long = min(round(short * 4 / 3), int(longest))
    return max(LEAST_SIDE, min(short, round(long * 3 / 4))), max(LEAST_SIDE, long)
