"""One trial of ``--find-batch-size`` in a process of its own: a few training iterations, and what they needed.

``PADing.engine.batch_size`` starts this module with the paths of two JSON files, the request and the result. The
request has ``config_file``, ``opts`` and ``memory_limit`` (bytes, or None). The result has ``peak`` (bytes) and
``images_per_second``. Exit status 3: out of memory.
"""

import json
import sys
import time
from pathlib import Path

from PADing.peak_memory import peak_memory

STATUS_OUT_OF_MEMORY = 3
ITERATIONS = 2


def main(request: str, result: str) -> int:
    """Run the trial; returns the exit status."""
    wanted = json.loads(Path(request).read_text(encoding="utf-8"))
    from PADing.command_line import run_command
    from PADing.engine.memory import is_out_of_memory

    def run() -> None:
        measured = measure(wanted["config_file"], wanted["opts"], wanted["memory_limit"])
        Path(result).write_text(json.dumps(measured), encoding="utf-8")

    def guarded() -> int:
        try:
            run()
        except Exception as error:
            if is_out_of_memory(error):
                return STATUS_OUT_OF_MEMORY
            raise
        return 0

    return run_command(guarded)


def limit_memory(size: int) -> None:
    """Let this process allocate so many bytes of main memory at most; UserError where the system cannot."""
    from PADing.errors import UserError

    try:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    except (ImportError, ValueError, OSError) as error:
        raise UserError(f"--memory-limit cannot be set on this system: {error}.") from error


def measure(config_file: str, opts: list, memory_limit: int | None) -> dict[str, float]:
    """Train ``ITERATIONS`` iterations with random weights, without writing anything.

    Returns ``peak``, the largest memory of the device in bytes, and ``images_per_second`` of the last iteration.
    """
    import torch
    from detectron2.utils.env import seed_all_rng
    from detectron2.utils.events import EventStorage

    from PADing.config import load_config
    from PADing.engine.recipes import build_recipe
    from PADing.engine.trainer import Trainer

    cfg = load_config(config_file, opts)
    seed_all_rng(max(cfg.SEED, 0))
    if memory_limit is not None:
        limit_memory(memory_limit)
    model = Trainer.build_model(cfg).train()
    recipe = build_recipe(cfg, model)
    batches = iter(Trainer.build_train_loader(cfg))
    on_gpu = next(model.parameters()).is_cuda
    seconds = 0.0
    with EventStorage(0):
        for _ in range(ITERATIONS):
            batch = next(batches)
            start = time.perf_counter()
            recipe.step(model, batch, 0.0)
            if on_gpu:
                torch.cuda.synchronize()
            seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_reserved() if on_gpu else peak_memory()
    return {"peak": peak, "images_per_second": cfg.SOLVER.IMS_PER_BATCH / seconds}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
