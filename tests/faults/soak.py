"""Thousands of iterations, predictions and evaluations in one process, which must not grow."""

import logging
import os
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults import children
from tests.faults.battery import Case
from tests.faults.commands import REPOSITORY
from tests.faults.disk import cannot_mount
from tests.faults.targets import D2Z, D2ZERO, PADING, PRETRAIN, SMALL, STAGE2, Workplace, embeddings

SAMPLES = 100
MEBIBYTES = 6  # that the second half may add; allocators keep some memory
TINY = """
    INPUT.IMAGE_SIZE 32 INPUT.MIN_SIZE_TEST 32 INPUT.MAX_SIZE_TEST 48 SOLVER.IMS_PER_BATCH 2 TEST.EVAL_PERIOD 0
    MODEL.SEM_SEG_HEAD.CONVS_DIM 64 MODEL.SEM_SEG_HEAD.MASK_DIM 16
    MODEL.MASK_FORMER.DIM_FEEDFORWARD 16 MODEL.MASK_FORMER.NUM_OBJECT_QUERIES 4 MODEL.MASK_FORMER.DEC_LAYERS 2
    SOLVER.CHECKPOINT_PERIOD 100 SOLVER.CHECKPOINT_KEEP 2 MODEL.MASK_FORMER.TRAIN_NUM_POINTS 32
""".split()


def cases(place: Workplace, seed: int, scale: float = 1) -> Iterator[Case]:
    for name, function, count in (
        ("mask2former", lambda f, n: _training(place, f, n, PRETRAIN), 2000),
        ("d2zero", lambda f, n: _training(place, f, n, D2Z, *D2ZERO), 2000),
        ("stage2", lambda f, n: _training(place, f, n, STAGE2, *PADING), 2000),
        ("workers", lambda f, n: _training(place, f, n, PRETRAIN, "DATALOADER.NUM_WORKERS", 1), 600),
        ("prediction", lambda f, n: _prediction(place, f, n), 2000),
        ("evaluation", lambda f, n: _evaluation(place, f, n), 200),
    ):
        number = max(20, round(count * scale))
        yield Case(f"soak/{name}/{number}", lambda folder, _, f=function, n=number: f(folder, n), seconds=1500)


class Growth:
    """What the process and its children hold, sampled while something is repeated."""

    def __init__(self, total: int):
        if not cannot_mount():  # segments of other programs must not count
            children.private_mounts()
            children.small_disk(Path("/dev/shm"), 2**28)
        self.every = max(1, total // SAMPLES)
        self.samples: list[dict[str, float]] = []

    def step(self, number: int) -> None:
        if number % self.every == 0:
            self.samples.append(held())

    def check(self) -> str:
        """Compare the second half of the samples with itself and with the first."""
        half = len(self.samples) // 2
        late = self.samples[half:]
        memory = [sample["MiB"] for sample in late]
        added = _slope(memory) * len(memory)
        assert added < MEBIBYTES, f"the second half adds {added:.1f} MiB: {memory[0]:.0f} to {memory[-1]:.0f}"
        for key in ("files", "threads", "segments", "processes"):
            first, last = (
                max(s[key] for s in part) for part in (self.samples[half // 2 : half], late[len(late) // 2 :])
            )
            assert last <= first, f"{key} grow from {first} to {last}"
        last = self.samples[-1]
        return f"{memory[0]:.0f} to {memory[-1]:.0f} MiB in the second half ({added:+.1f} by its slope), " + ", ".join(
            f"{last[key]:.0f} {key}" for key in ("files", "threads", "segments", "processes")
        )


def held() -> dict[str, float]:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {
        "MiB": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "segments": len(os.listdir("/dev/shm")),
        "processes": len(children),
    }


def _slope(values: list[float]) -> float:
    """The median slope of all pairs (Theil and Sen), which single jumps do not move."""
    n = len(values)
    return statistics.median((values[j] - values[i]) / (j - i) for i in range(n) for j in range(i + 1, n))


def _config(place: Workplace, folder: Path, config: str, *more: object) -> Any:
    from PADing.config import load_config

    place.reference("data")
    os.environ["DETECTRON2_DATASETS"] = str(place.data)
    from PADing.data.registration import register_builtin

    register_builtin()
    logging.disable(logging.INFO)
    opts = [*SMALL, *TINY, *embeddings(place), "OUTPUT_DIR", folder / "out", *more]
    return load_config(str(REPOSITORY / "configs" / "mini" / config), [str(opt) for opt in opts])


def _training(place: Workplace, folder: Path, count: int, config: str, *more: object) -> str:
    from detectron2.engine import HookBase

    from PADing.engine.trainer import Trainer

    growth = Growth(count)

    class Measure(HookBase):
        def after_step(self) -> None:
            growth.step(self.trainer.iter)

    trainer = Trainer(_config(place, folder, config, "SOLVER.MAX_ITER", count, *more))
    (folder / "out").mkdir(exist_ok=True)
    trainer.register_hooks([Measure()])
    trainer.train()
    return growth.check()


def _model(place: Workplace, folder: Path, config: str, *more: object) -> Any:
    import torch
    from detectron2.modeling import build_model

    cfg = _config(place, folder, config, *more)
    torch.manual_seed(1)
    (folder / "out").mkdir(exist_ok=True)
    torch.save({"model": build_model(cfg).state_dict()}, folder / "weights.pth")
    return _config(place, folder, config, *more, "MODEL.WEIGHTS", folder / "weights.pth")


def _prediction(place: Workplace, folder: Path, count: int) -> str:
    """Images of 20 sizes."""
    from PADing.inference import Predictor

    predictor = Predictor(_model(place, folder, D2Z, *D2ZERO))
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 255, (24 + 2 * i, 60 - i, 3), dtype=np.uint8) for i in range(20)]
    return _repeat(count, lambda i: predictor(images[i % 20]))


def _evaluation(place: Workplace, folder: Path, count: int) -> str:
    from PADing.engine.trainer import Trainer

    cfg = _model(place, folder, PRETRAIN)
    model = Trainer.build_model(cfg)
    return _repeat(count, lambda _: Trainer.test(cfg, model))


def _repeat(count: int, function: Callable[[int], object]) -> str:
    growth = Growth(count)
    for number in range(count):
        function(number)
        growth.step(number)
    return growth.check()
