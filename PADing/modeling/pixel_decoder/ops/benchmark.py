"""Measures time and memory of all implementations of this operator; ``PADing.commands.benchmark`` is its command."""

import argparse
import ctypes
import functools
import logging
import pkgutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from PADing.commands.benchmark import CASES, DTYPE_NAMES, main
from PADing.errors import UserError
from PADing.files import write_json
from PADing.modeling.pixel_decoder.ops import backends
from PADing.modeling.pixel_decoder.ops.pytorch import ms_deform_attn_pytorch

logger = logging.getLogger("benchmark")

HEADS, CHANNELS, POINTS = 8, 32, 4
SPREAD = 2.0  # pixels, standard deviation of the samples around their reference point
DEFAULT_CASES = {"cpu": ["800x1066", "512x512"], "cuda": ["800x1066", "1024x1024_batch2"]}
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


# (inputs, value, locations, weights) -> output; the wrapper converts the last two to the contender's dtype.
Contender = Callable[[Inputs, Tensor, Tensor, Tensor], Tensor]


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


@functools.cache
def contenders(device: str) -> dict[str, Contender]:
    """All available implementations, by name."""
    found: dict[str, Contender] = {"pytorch": lambda i, v, *rest: ms_deform_attn_pytorch(v, i.shapes, i.starts, *rest)}
    reason = backends.load(device)
    if reason is None:
        found[device] = lambda i, *tensors: torch.ops.pading.ms_deform_attn(*tensors, i.table, None)
    else:
        logger.warning("%s kernel skipped: %s", device, reason)
    tensors, mmcv = ("shapes_tensor", "starts_tensor"), "mmcv.ops.multi_scale_deform_attn:"
    mmcv_cuda = mmcv + "MultiScaleDeformableAttnFunction.apply"
    transformers = "transformers.models.mask2former.modeling_mask2former:multi_scale_deformable_attention"
    peers: dict[str, dict[str, Callable[[], Contender]]] = {
        "cuda": {
            "im2col": _im2col,
            "deformops": lambda: _peer("deformops:deform2d_multiscale", *tensors),
            "mmcv": lambda: _in_one_dtype(_peer(mmcv_cuda, *tensors, last=(64,))),
        },
        "cpu": {"mmcv": lambda: _in_one_dtype(_peer(mmcv + "multi_scale_deformable_attn_pytorch", tensors[0]))},
    }
    for name, make in {**peers[device], "transformers": lambda: _in_one_dtype(_peer(transformers, "shapes"))}.items():
        try:
            found[name] = make()
        except (ImportError, AttributeError, OSError, RuntimeError) as error:
            logger.info("%s not measured: %s", name, str(error).splitlines()[0])
    return found


def _in_one_dtype(function: Contender) -> Contender:
    """Call ``function`` with locations and weights in the dtype of the value."""
    return lambda i, value, locations, weights: function(i, value, locations.to(value.dtype), weights.to(value.dtype))


def _peer(path: str, *levels: str, last: tuple = ()) -> Contender:
    """The function at ``path``, called with the value, the inputs' attributes ``levels``, the others, and ``last``."""
    function = pkgutil.resolve_name(path)
    return lambda i, value, *rest: function(value, *(getattr(i, name) for name in levels), *rest, *last)


def _im2col() -> Contender:
    from torch.utils.cpp_extension import load

    source, flags = Path(__file__).with_name("benchmark_im2col.cu"), ["-O3"]
    with tempfile.TemporaryDirectory() as folder:
        name = "pading_benchmark"
        load(name, [str(source)], build_directory=folder, is_python_module=False, extra_cuda_cflags=flags)

    class Im2col(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            ctx.save_for_backward(*inputs)
            return torch.ops.pading_benchmark.im2col_forward(*inputs)

        @staticmethod
        def backward(ctx, grad):
            grads = torch.ops.pading_benchmark.im2col_backward(grad.contiguous(), *ctx.saved_tensors)
            return grads[0], None, None, *grads[1:]

    return _in_one_dtype(lambda i, value, *rest: Im2col.apply(value, i.shapes_tensor, i.starts_tensor, *rest))


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
        before = _status("VmRSS")
        function()
        return (_status("VmHWM") - before) / 2**10
    except (OSError, AttributeError, StopIteration):
        return None


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key + ":"))


def measure(case: str, dtype: str, device: str, rounds: int, budget: float) -> list[dict]:
    """Rows of one case and dtype: all contenders in turn, ``rounds`` times or until ``budget`` seconds are over."""
    inputs = make_inputs(case, DTYPES[dtype], device)
    rows = []
    for passes, backward in (("fwd", False), ("fwdbwd", True)):
        calls: dict[str, functools.partial[None]] = {}
        peaks: dict[str, float | None] = {}
        for name, function in contenders(device).items():
            call = functools.partial(run_once, function, inputs, backward)
            try:
                call()
            except (RuntimeError, TypeError, ValueError) as error:
                logger.info("%s cannot do %s %s: %s", name, dtype, passes, str(error).splitlines()[0])
                continue
            calls[name], peaks[name] = call, peak_mb(call, device)
            call()
        times: dict[str, list[float]] = {name: [] for name in calls}
        deadline = time.perf_counter() + budget
        for turn in range(rounds):
            if turn >= 3 and time.perf_counter() > deadline:
                break
            for name, call in calls.items():
                times[name].append(milliseconds(call, device))
        medians = {name: statistics.median(taken) for name, taken in times.items()}
        for name, taken in times.items():
            peak = peaks[name]
            row: dict = {"backend": name, "device": device, "dtype": dtype, "case": case, "pass": passes}
            row |= {"median_ms": round(medians[name], 3), "min_ms": round(min(taken), 3)}
            row["ratio_to_pytorch"] = round(medians["pytorch"] / medians[name], 2) if "pytorch" in medians else None
            rows.append({**row, "peak_mb": None if peak is None else round(peak, 1), "runs": len(taken)})
    return rows


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
    print("| case | dtype | pass | backend | median ms | min ms | times faster than pytorch | peak MiB |")
    print("| --- | --- | --- | --- | ---: | ---: | ---: | ---: |")
    columns = ("case", "dtype", "pass", "backend", "median_ms", "min_ms", "ratio_to_pytorch", "peak_mb")
    for row in rows:
        print("| " + " | ".join("-" if row[k] is None else str(row[k]) for k in columns) + " |")
    if args.output:
        write_json(args.output, rows)


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
