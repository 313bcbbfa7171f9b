"""The base class of evaluators, and the loop that passes them a model's outputs."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sized
from datetime import timedelta

import torch
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import log_every_n_seconds
from torch import nn

logger = logging.getLogger(__name__)

UNTIMED_BATCHES = 5  # the first batches are slow, because memory is allocated and kernels are chosen
SECONDS_BETWEEN_REPORTS = 5


class DatasetEvaluator:
    """Collects a model's outputs batch by batch and computes metrics from them."""

    def reset(self):
        """Forget everything; also called before the first batch."""

    def process(self, inputs, outputs):
        """Collect one batch: two lists of the same length, with a dict for each image."""

    def evaluate(self):
        """The metrics, usually ``{task: {metric: number}}``. Processes that have none return None."""


def save_results(folder: str | None, files: Mapping[str, object]) -> None:
    """Write files into ``folder`` (None: write nothing): JSON by the name .json, others by ``torch.save``."""
    for name, content in files.items() if folder else ():
        PathManager.mkdirs(folder)
        with PathManager.open(os.path.join(str(folder), name), "w" if name.endswith(".json") else "wb") as file:
            json.dump(content, file) if name.endswith(".json") else torch.save(content, file)


class DatasetEvaluators(DatasetEvaluator):
    """Passes every batch to several evaluators and merges their metrics, which must be of different tasks."""

    def __init__(self, evaluators: Iterable[DatasetEvaluator]):
        self._evaluators = list(evaluators)

    def reset(self):
        """Reset all."""
        for member in self._evaluators:
            member.reset()

    def process(self, inputs, outputs):
        """Pass one batch to all evaluators."""
        for member in self._evaluators:
            member.process(inputs, outputs)

    def evaluate(self):
        """All metrics in the main process, an empty dict in the others."""
        # Gathering needs all processes, so evaluate in each of them.
        answers = [member.evaluate() for member in self._evaluators]
        joined = {}
        for answer in answers if comm.is_main_process() else ():
            for task, metrics in (answer or {}).items():
                assert task not in joined, f"More than one evaluator has metrics under the same key {task}."
                joined[task] = metrics
        return joined


def inference_on_dataset(
    model: Callable, data_loader: Iterable, evaluator: DatasetEvaluator | list[DatasetEvaluator] | None
):
    """Run a model on every batch of a loader with a length, without gradients, and evaluate its outputs.

    A module is in eval mode during this. ``evaluator`` may be a list, or None to measure time only. Returns what
    ``evaluator.evaluate()`` returns, or an empty dict in place of None.
    """
    if evaluator is None or isinstance(evaluator, list):
        evaluator = DatasetEvaluators(evaluator or [])
    assert isinstance(data_loader, Sized), "Inference needs a data loader with a length."
    clock = _Stopwatch(len(data_loader))
    logger.info(f"Start inference on {len(data_loader)} batches")
    evaluator.reset()
    mode = isinstance(model, nn.Module) and model.training
    try:
        if isinstance(model, nn.Module):
            model.eval()
        with torch.no_grad():
            clock.start()
            for number, batch in enumerate(data_loader):
                if number == clock.untimed:
                    clock.start()
                clock.lap("Dataloading")
                answers = model(batch)
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                clock.lap("Inference")
                evaluator.process(batch, answers)
                clock.lap("Eval")
                clock.batch_done(number + 1)
    finally:
        if isinstance(model, nn.Module):
            model.train(mode)
    clock.summarize()
    metrics = evaluator.evaluate()
    return metrics if metrics is not None else {}


class _Stopwatch:
    """Measures the time of each part of a loop over ``batches`` batches, and logs it every few seconds."""

    def __init__(self, batches: int):
        self.batches, self.untimed = batches, max(0, min(UNTIMED_BATCHES, batches - 1))

    def start(self) -> None:
        self.begin = self.last = time.perf_counter()
        self.timed, self.seconds = 0, {"Dataloading": 0.0, "Inference": 0.0, "Eval": 0.0}

    def lap(self, part: str) -> None:
        """Add the time since the last lap to this part."""
        now = time.perf_counter()
        self.seconds[part], self.last = self.seconds[part] + now - self.last, now

    def batch_done(self, number: int) -> None:
        self.timed += 1
        # A report needs some batches to average over, or batches so slow that one says enough.
        if self.timed > self.untimed or self.seconds["Inference"] > 5 * self.timed:
            total = self._per_batch()
            parts = " ".join(f"{part}: {spent / self.timed:.4f} s/iter." for part, spent in self.seconds.items())
            eta = timedelta(seconds=int(total * (self.batches - number)))
            text = f"Inference done {number}/{self.batches}. {parts} Total: {total:.4f} s/iter. ETA={eta}"
            log_every_n_seconds(logging.INFO, text, n=SECONDS_BETWEEN_REPORTS)

    def _per_batch(self) -> float:
        return (time.perf_counter() - self.begin) / max(self.timed, 1)

    def summarize(self) -> None:
        """Log the time of the whole loop, and that of the model alone."""
        per_batch = {"time": self._per_batch(), "pure compute time": self.seconds["Inference"] / max(self.timed, 1)}
        for what, seconds in per_batch.items():
            logger.info(
                f"Total inference {what}: {timedelta(seconds=int(seconds * self.timed))} "
                f"({seconds:.6f} s / iter per device, on {comm.get_world_size()} devices)"
            )
