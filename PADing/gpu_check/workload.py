"""One process: trains and infers with a config in several variants, and measures each.

``python -m PADing.gpu_check.workload REQUEST RESULT``, both JSON files. The request has ``config_file``, ``opts``,
``iterations``, ``detail`` (whether to trace one iteration and to measure inference), and ``variants``: name ->
``{"opts": [...], "compile": bool}``. The result, written after each variant, has for each ``losses`` (one number an
iteration), ``ms`` (median of the second half), ``images_per_second``, ``loading_ms``, ``peak_mb``, or ``error``.
"""

import contextlib
import statistics
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from torch import nn

from PADing.config import load_config
from PADing.engine.compilation import compile_parts
from PADing.engine.recipes import build_recipe
from PADing.engine.trainer import Trainer
from PADing.errors import UserError
from PADing.files import read_json, write_json

INFERENCES = 8


def main(request: str, result: str) -> int:
    """Measure all variants; returns the exit status: 1 if one failed."""
    wanted, found = read_json(request, "Request"), dict[str, Any]()
    for name, variant in wanted["variants"].items():
        try:
            found[name] = measure(wanted, variant)
        except (RuntimeError, UserError, ValueError, TypeError, AttributeError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            found[name] = {"error": f"{type(error).__name__}: {lines[0]}"}
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
        write_json(result, {"variants": found}, indent=2)
    return int(any("error" in row for row in found.values()))


def measure(request: dict, variant: dict) -> dict[str, Any]:
    """The figures of one variant."""
    cfg = load_config(request["config_file"], [*request["opts"], *variant.get("opts", [])])
    seed_all_rng(max(cfg.SEED, 0))
    model = Trainer.build_model(cfg).train()
    gpu = next(model.parameters()).is_cuda
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    if variant.get("compile"):
        compile_parts(model)
    row = _train(cfg, model, request["iterations"], request["detail"] and gpu)
    row["peak_mb"] = round(torch.cuda.max_memory_allocated() / 2**20) if gpu else None
    if request["detail"]:
        row |= _infer(cfg, model)
    return row


def _train(cfg: CfgNode, model: nn.Module, iterations: int, trace: bool) -> dict[str, Any]:
    recipe, batches = build_recipe(cfg, model), iter(Trainer.build_train_loader(cfg))
    losses, seconds, loading = [], [], []
    with EventStorage(0) as storage:
        for iteration in range(iterations):
            storage.iter = iteration
            begin = time.perf_counter()
            batch = next(batches)
            start = time.perf_counter()
            recipe.step(model, batch, 0.0)
            _wait()
            seconds.append(time.perf_counter() - start)
            loading.append(start - begin)
            losses.append(_loss(storage))
        extra = _trace(lambda: recipe.step(model, batch, 0.0)) if trace else {}
    step = statistics.median(seconds[iterations // 2 :])
    return {
        "losses": losses,
        "ms": round(1e3 * step, 2),
        "loading_ms": round(1e3 * statistics.median(loading[iterations // 2 :]), 2),
        "images_per_second": round(cfg.SOLVER.IMS_PER_BATCH / step, 3),
        **extra,
    }


def _loss(storage: EventStorage) -> float:
    """The last iteration's total loss; a recipe with several optimizers logs several, which are added."""
    return sum(value for name, (value, _) in storage.latest().items() if name.endswith("total_loss"))


def _trace(step) -> dict[str, Any]:
    """Where one iteration waits for the GPU, and the share of its time in copies and in starting kernels."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    places = Counter(_place(w) for w in caught if "synchronizing" in str(w.message))
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    _wait()
    start = time.perf_counter()
    with torch.profiler.profile(activities=kinds) as profile:
        step()
        _wait()
    total = 1e6 * (time.perf_counter() - start)
    events = profile.key_averages()
    launches = [event for event in events if event.key == "cudaLaunchKernel"]
    return {
        "synchronisations": sum(places.values()),
        "synchronisations_by_place": dict(places.most_common(20)),
        "share_of_copies": round(sum(_gpu_time(e) for e in events if e.key.startswith("Memcpy")) / total, 4),
        "share_of_launches": round(sum(event.self_cpu_time_total for event in launches) / total, 4),
        "kernels": sum(event.count for event in launches),
        "slowest_kernels": {
            event.key[:80]: round(_gpu_time(event) / total, 4)
            for event in sorted(events, key=_gpu_time, reverse=True)[:12]
        },
    }


def _place(warning: warnings.WarningMessage) -> str:
    return "/".join(Path(warning.filename).parts[-2:]) + f":{warning.lineno}"


def _gpu_time(event) -> float:
    """Microseconds on the GPU; PyTorch 2.6 has renamed it."""
    name = "self_device_time_total" if hasattr(event, "self_device_time_total") else "self_cuda_time_total"
    return float(getattr(event, name))


def _infer(cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
    model.eval()
    seconds = []
    loader = iter(Trainer.build_test_loader(cfg, cfg.DATASETS.TEST[0]))
    kind = next(model.parameters()).device.type
    dtype = getattr(torch, cfg.SOLVER.AMP.PRECISION)
    half = torch.autocast(kind, dtype=dtype) if cfg.SOLVER.AMP.ENABLED and kind == "cuda" else contextlib.nullcontext()
    with torch.no_grad(), half:
        for batch in (next(loader) for _ in range(INFERENCES)):
            start = time.perf_counter()
            model(batch)
            _wait()
            seconds.append(time.perf_counter() - start)
    return {"inference_ms": round(1e3 * statistics.median(seconds[len(seconds) // 2 :]), 2)}


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
