"""Makes exported programs and writes them to files: ``.pt2`` of torch.export, and ``.onnx``."""

import importlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from PADing.errors import UserError
from PADing.export.description import EXTRA, KEY
from PADing.export.program import INPUT, LEAST_SIDE, Program
from PADing.modeling.pixel_decoder.ops.decomposed import decomposed

ONNX, TORCH = ".onnx", ".pt2"
# The exporter writes no older ones; GridSample exists since 16.
OPSETS = range(18, 24)
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TRACED = (2, 72, 104)  # batch, height, width: any size with different numbers
Function = Callable[[Tensor], dict[str, Tensor]]


def check_packages() -> None:
    """UserError if the packages that ONNX files need are not installed."""
    missing = []
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise UserError(
            f'ONNX files need {", ".join(missing)}, not installed here. Install with: pip install "pading[export]", '
            f"or pip install {' '.join(missing)}. A {TORCH} file needs none of them."
        )


def trace(program: Program, sampling: str, greatest_side: int) -> torch.export.ExportedProgram:
    """Record the program's operations with symbols for batch, height and width.

    Args:
        program: on the CPU, in evaluation mode; it stays unchanged.
        sampling: see ``decomposed``.
        greatest_side: the greatest height and width.

    Raises:
        UserError: the model's computation cannot be recorded, as with Python numbers made of tensors.
    """
    sides = {"min": LEAST_SIDE, "max": greatest_side}
    dims = {0: torch.export.Dim("batch", min=1), 2: torch.export.Dim("height", **sides)}
    dims[3] = torch.export.Dim("width", **sides)
    batch, height, width = TRACED
    with torch.no_grad(), decomposed(sampling), _quiet():
        try:
            images = (torch.rand(batch, 3, height, width) * 255,)
            exported = torch.export.export(program, images, dynamic_shapes=(dims,), strict=False)
        except Exception as error:  # torch.export raises many types
            raise UserError(
                f"{type(program.model).__name__} cannot be exported: {_first_line(error)}. Its predict(images) and the "
                "networks must use tensor operations, without Python numbers made of values or of the batch size. "
                "PADING_TRACEBACK=1 shows the place."
            ) from error
    for graph in exported.graph_module.modules():
        if isinstance(graph, torch.fx.GraphModule):
            for node in graph.graph.nodes:
                node.meta.pop("stack_trace", None)  # has paths of this machine
    return exported


def write_torch(path: Path, exported: torch.export.ExportedProgram, description: Mapping[str, Any]) -> None:
    """Write a program of torch.export, with its description inside."""
    with _quiet():
        torch.export.save(exported, path, extra_files={EXTRA: json.dumps(description)})


def write_onnx(
    path: Path,
    exported: torch.export.ExportedProgram,
    names: tuple[str, ...],
    description: Mapping[str, Any],
    opset: int,
) -> None:
    """Translate to ONNX and write, with its description in ``metadata_props``; UserError if ONNX lacks an operation."""
    with _quiet():
        try:
            made = torch.onnx.export(
                exported, dynamo=True, opset_version=opset, input_names=[INPUT], output_names=list(names), verbose=False
            )
            assert made is not None
        except Exception as error:  # the exporter raises many types
            raise UserError(
                f"The program cannot be written as ONNX with opset {opset}: {_first_line(error)}. A {TORCH} file may "
                "work; PADING_TRACEBACK=1 shows the place."
            ) from error
        model = made.model
        written = model.opset_imports.get("")
        if written != opset:
            raise UserError(f"The exporter wrote opset {written} in place of {opset}. Choose {written}.")
        for graph in (model.graph, *model.functions.values()):
            for node in graph:
                node.metadata_props.clear()  # has paths of this machine
        model.metadata_props.clear()
        model.metadata_props[KEY] = json.dumps(description)
        made.save(path)
    beside = path.with_name(path.name + ".data")
    if beside.exists():
        beside.unlink()
        raise UserError("The model has more than 2 GB of weights, which one ONNX file cannot hold. Name a .pt2 file.")


def load_torch(path: Path, names: tuple[str, ...]) -> Function:
    """A ``.pt2`` file as a function of images."""
    with _quiet():
        module = torch.export.load(path).module()

    def function(images: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            return dict(zip(names, module(images), strict=True))

    return function


def load_onnx(path: Path, threads: int) -> Function:
    """An ``.onnx`` file as a function of images, computed by ONNX Runtime on the CPU with this many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def function(images: Tensor) -> dict[str, Tensor]:
        found = session.run(None, {INPUT: images.numpy()})
        return {name: torch.from_numpy(np.asarray(value)) for name, value in zip(names, found, strict=True)}

    return function


@contextmanager
def _quiet():
    """Without the exporters' progress and warnings, which speak of their own insides."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.ERROR)
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".")
