"""One process of a job of the scaling benchmark: some training steps, with their time, traffic and memory.

The driver starts it with torchrun's environment variables, and with the paths of two JSON files, the request and the
result. The first process of a job writes the result.
"""

import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PADing.peak_memory import memory_status


def main(request: str, result: str) -> None:
    """Run the request's steps."""
    wanted = json.loads(Path(request).read_text(encoding="utf-8"))
    import torch

    if wanted["threads"]:
        torch.set_num_threads(wanted["threads"])
    from PADing.engine.distributed import torchrun_process_group

    group = torchrun_process_group(cpu=wanted["device"] == "cpu")
    with group if int(os.environ["WORLD_SIZE"]) > 1 else contextlib.nullcontext():
        measured = measure(wanted)
    if os.environ["RANK"] == "0":
        Path(result).write_text(json.dumps(measured), encoding="utf-8")


def measure(wanted: dict[str, Any]) -> dict[str, Any]:
    """Build the model and train; returns what ``PADing.model_benchmark.scaling`` prints."""
    import torch
    from detectron2.utils import comm
    from detectron2.utils.env import seed_all_rng
    from detectron2.utils.events import EventStorage

    from PADing.engine.recipes import build_recipe
    from PADing.engine.trainer import Trainer, wrap_for_processes
    from PADing.model_benchmark.traffic import Traffic
    from PADing.model_benchmark.workload import training_sample

    with tempfile.TemporaryDirectory() as folder:
        cfg = config_of(wanted["config_file"], [*wanted["opts"], "MODEL.DEVICE", wanted["device"]], Path(folder))
        seed_all_rng(1)
        model: Any = Trainer.build_model(cfg).train()
    recipe: Any = build_recipe(cfg, model)
    seed_all_rng(2 + comm.get_rank())
    traffic, wrapped = Traffic(), model
    before = memory_status("VmRSS")
    if comm.get_world_size() > 1:
        wrapped = wrap_for_processes(model, recipe.find_unused_parameters, **wanted["ddp"])
        traffic.watch_gradients(wrapped, recipe)
    classes = model.criterion.num_classes
    first = comm.get_rank() * wanted["images"]
    batch = [training_sample(first + i, classes, wanted["side"]) for i in range(wanted["images"])]
    on_gpu = wanted["device"] != "cpu"

    def step(context: Any) -> float:
        if on_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        with context:
            recipe.step(wrapped, batch, 0.0)
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    seconds, cpu, silent = [], [], []
    with EventStorage(0), traffic.watched():
        for _ in range(2):  # the first steps allocate, fill caches and sort the buckets
            step(contextlib.nullcontext())
        traffic.clear()
        for _ in range(wanted["repeats"]):
            used = time.process_time()
            seconds.append(step(contextlib.nullcontext()))
            cpu.append(time.process_time() - used)
        counted = {name: dict(getattr(traffic, name)) for name in ("bytes", "calls", "seconds")}
        for _ in range(wanted["repeats"] if wrapped is not model else 0):
            silent.append(step(wrapped.no_sync()))
    repeats = wanted["repeats"]
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "silent_seconds": silent,
        "traffic": {
            name: {
                "bytes": size / repeats,
                "calls": counted["calls"][name] / repeats,
                "seconds": None if on_gpu else counted["seconds"].get(name, 0.0) / repeats,
            }
            for name, size in counted["bytes"].items()
        },
        "state_bytes": state_bytes(recipe.optimizers.values()),
        "memory_before": before,
        "peak": torch.cuda.max_memory_allocated() if on_gpu else memory_status("VmHWM"),
        "gradient_bytes": gradient_bytes(model, recipe),
        "find_unused": recipe.find_unused_parameters,
        "trained_tensors": sum(p.requires_grad for p in model.parameters()),
        "software": f"torch {torch.__version__}",
    }


def config_of(file: str, opts: list, folder: Path) -> Any:
    """The config, with random class embeddings if it names no file that is there."""
    from detectron2.config import CfgNode
    from detectron2.data import MetadataCatalog

    from PADing.class_space import ClassSpace
    from PADing.config import load_config
    from PADing.data.embeddings import save_class_embeddings

    cfg: CfgNode = load_config(file, opts)
    if cfg.MODEL.META_ARCHITECTURE == "MaskFormer" or os.path.exists(cfg.MODEL.CLASS_EMBEDDINGS):
        return cfg
    import numpy as np

    names = ClassSpace.of(MetadataCatalog.get(cfg.DATASETS.TRAIN[0])).vocabulary
    path = folder / "class_embeddings.npz"
    save_class_embeddings(path, names, np.random.RandomState(0).randn(len(names), 512), "random")
    return load_config(file, [*opts, "MODEL.CLASS_EMBEDDINGS", str(path)])


def gradient_bytes(model: Any, recipe: Any) -> int:
    """Bytes of gradients that a step all-reduces: those of all trained parameters, once for each of its updates."""
    return len(recipe.optimizers) * sum(p.nbytes for p in model.parameters() if p.requires_grad)


def state_bytes(optimizers: Any) -> int:
    """Bytes of the tensors in the states of optimizers."""
    import torch

    values = (value for optimizer in optimizers for state in optimizer.state.values() for value in state.values())
    return sum(value.nbytes for value in values if isinstance(value, torch.Tensor))


if __name__ == "__main__":
    main(*sys.argv[1:])
