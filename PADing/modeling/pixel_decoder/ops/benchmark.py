"""Measures time and memory of all implementations of this operator; ``PADing.commands.benchmark`` is its command."""

import argparse
import contextlib
import ctypes
import functools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from PADing.commands.benchmark import CASES, DTYPE_NAMES, main
from PADing.errors import UserError
from PADing.files import write_json
from PADing.modeling.pixel_decoder.ops import backends
from PADing.modeling.pixel_decoder.ops.benchmark_peers import Contender, contenders, first_line
from PADing.peak_memory import memory_status

HEADS, CHANNELS, POINTS = 8, 32, 4
SPREAD = 2.0  # pixels, standard deviation of the samples around their reference point
DEFAULT_CASES = {"cpu": ["800x1066", "512x512"], "cuda": ["800x1066", "1024x1024_batch2"]}
COLUMNS = ("case", "dtype", "pass", "backend", "median_ms", "min_ms", "ratio_to_pytorch", "peak_mb", "error")
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPE_NAMES}


@dataclass
class Inputs:
    """The inputs of one case; with half-precision values, ``locations`` and ``weights`` are float32, as in autocast."""

    shapes: list[tuple[int, int]]
    starts: list[int]
    value: Tensor
    locations: Tensor
    weights: Tensor
    grad: Tensor

    def __post_init__(self) -> None:
        self.table = [n for (h, w), s in zip(self.shapes, self.starts, strict=True) for n in (h, w, s)]
        self.shapes_tensor = torch.tensor(self.shapes, device=self.value.device)
        self.starts_tensor = torch.tensor(self.starts, device=self.value.device)


def make_inputs(case: str, dtype: torch.dtype, device: str) -> Inputs:
    """Random values, and samples near the position of each query, as in a trained encoder."""
    batch, shapes, queries = CASES[case]
    generator = torch.Generator().manual_seed(0)
    grids = []
    for h, w in shapes:
        y, x = torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij")
        grids.append(torch.stack([x, y], -1).view(-1, 2))
    references = torch.cat(grids)
    pixels = len(references)
    if queries is not None:
        references = torch.rand(queries, 2, generator=generator)
    shape = (batch, len(references), HEADS, len(shapes), POINTS)
    sizes = torch.tensor(shapes, dtype=torch.float32).flip(-1)
    offsets = torch.randn(*shape, 2, generator=generator) * SPREAD / sizes[:, None]
    wide = torch.promote_types(dtype, torch.float32)
    return Inputs(
        shapes,
        [sum(h * w for h, w in shapes[:i]) for i in range(len(shapes))],
        torch.randn(batch, pixels, HEADS, CHANNELS, generator=generator).to(device, dtype),
        (references[:, None, None, None] + offsets).to(device, wide),
        torch.randn(*shape[:3], len(shapes) * POINTS, generator=generator).softmax(-1).view(shape).to(device, wide),
        torch.randn(batch, len(references), HEADS * CHANNELS, generator=generator).to(device, dtype),
    )


def run_once(function: Contender, inputs: Inputs, backward: bool) -> None:
    """One call, with the backward pass if ``backward``."""
    tensors = [t.detach().requires_grad_(backward) for t in (inputs.value, inputs.locations, inputs.weights)]
    output = function(inputs, *tensors)
    if backward:
        output.backward(inputs.grad)


def milliseconds(function: Callable[[], object], device: str) -> float:
    """Wall-clock time of a call in milliseconds, with all work on the device."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    function()
    wait()
    return 1e3 * (time.perf_counter() - start)


def peak_mb(function: Callable[[], object], device: str) -> float | None:
    """The largest memory in use during a call minus that before it, in MiB; None if the system does not report it."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        ctypes.CDLL(None).malloc_trim(0)  # return freed memory, because reused memory would not be counted
        Path("/proc/self/clear_refs").write_text("5")  # reset the high-water mark
        resident = memory_status("VmRSS")
        function()
        peak = memory_status("VmHWM")
    except (OSError, AttributeError):
        return None
    return None if resident is None or peak is None else (peak - resident) / 2**20


def measure(case: str, dtype: str, device: str, rounds: int, budget: float) -> list[dict]:
    """Rows of one case and dtype: all contenders in turn, ``rounds`` times or until ``budget`` seconds are over.

    A contender that fails has a row, too: ``error`` says why, and its figures are None.
    """
    inputs = make_inputs(case, DTYPES[dtype], device)
    found, problems = contenders(device)
    rows = []
    for passes, backward in (("fwd", False), ("fwdbwd", True)):
        errors = dict(problems)
        calls = {name: functools.partial(run_once, function, inputs, backward) for name, function in found.items()}
        peaks: dict[str, float | None] = {}
        for name, call in calls.items():
            with _noting(errors, name):
                call()
                peaks[name] = peak_mb(call, device)
                call()
        times: dict[str, list[float]] = {name: [] for name in found}
        deadline = time.perf_counter() + budget
        for turn in range(rounds):
            if turn >= 3 and time.perf_counter() > deadline:
                break
            for name in [name for name in found if name not in errors]:
                with _noting(errors, name):
                    times[name].append(milliseconds(calls[name], device))
        base = statistics.median(times["pytorch"]) if "pytorch" not in errors else None
        for name in (*found, *problems):
            row: dict = {"backend": name, "device": device, "dtype": dtype, "case": case, "pass": passes}
            rows.append({**row, **_figures(times.get(name, []), base, peaks.get(name), errors.get(name))})
    return rows


@contextlib.contextmanager
def _noting(errors: dict[str, str], name: str) -> Iterator[None]:
    """Keep an error of a contender, of any kind, for its row."""
    try:
        yield
    except Exception as error:
        errors[name] = first_line(error)


def _figures(taken: list[float], base: float | None, peak: float | None, error: str | None) -> dict:
    if error is not None:
        return {"median_ms": None, "min_ms": None, "ratio_to_pytorch": None, "peak_mb": None, "runs": 0, "error": error}
    median = statistics.median(taken)
    return {
        "median_ms": round(median, 3),
        "min_ms": round(min(taken), 3),
        "ratio_to_pytorch": None if base is None else round(base / median, 2),
        "peak_mb": None if peak is None else round(peak, 1),
        "runs": len(taken),
        "error": None,
    }


def benchmark_msda(args: argparse.Namespace) -> None:
    """Measure, and print a table in Markdown."""
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda, but PyTorch sees no GPU here")
    if args.threads:
        torch.set_num_threads(args.threads)
    rows = []
    for case in args.case or DEFAULT_CASES[device]:
        for dtype in args.dtype or ["float32", "bfloat16", "float16"]:
            rows += measure(case, dtype, device, args.rounds, args.seconds)
    print(f"torch {torch.__version__}, {describe(device)}")
    print("| case | dtype | pass | backend | median ms | min ms | times faster than pytorch | peak MiB | error |")
    print("| --- | --- | --- | --- | ---: | ---: | ---: | ---: | --- |")
    for row in rows:
        print("| " + " | ".join(_cell(row[k]) for k in COLUMNS) + " |")
    if args.output:
        write_json(args.output, rows)


def _cell(value: object) -> str:
    return "-" if value is None else str(value).replace("|", "/")


def describe(device: str) -> str:
    """The machine, in words."""
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    isa = "no compiled kernel"
    if backends.load("cpu", compile_if_missing=False) is None:
        isa = f"kernel for {torch.ops.pading_msda.cpu_instruction_set()}"
    return f"{torch.get_num_threads()} CPU threads, {isa}"


if __name__ == "__main__":
    sys.exit(main())
