"""What an evaluator is, and the loop that shows it a model's answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from itertools import count

import torch
from detectron2.utils import comm
from detectron2.utils.logger import log_every_n_seconds
from torch import nn

__all__ = ["DatasetEvaluator", "DatasetEvaluators", "inference_context", "inference_on_dataset"]

UNTIMED_BATCHES = 5  # the first ones are slow: memory is allocated, kernels are chosen
SECONDS_BETWEEN_REPORTS = 5
PARTS = ("Dataloading", "Inference", "Eval")  # of the time that a batch takes


class DatasetEvaluator:
    """Collects a model's answers to a data set, batch by batch, and turns them into figures."""

    def reset(self):
        """Begin a new round; also the first one, before anything is processed."""

    def process(self, inputs, outputs):
        """Collect one batch: two lists of the same length, with a dict for each image."""

    def evaluate(self):
        """The figures, usually ``{task: {metric: number}}``. Processes that have none return None."""


class DatasetEvaluators(DatasetEvaluator):
    """Shows every batch to several evaluators and joins their figures, which must be of different tasks."""

    def __init__(self, evaluators: Iterable[DatasetEvaluator]):
        self._evaluators = list(evaluators)

    def reset(self):
        for member in self._evaluators:
            member.reset()

    def process(self, inputs, outputs):
        for member in self._evaluators:
            member.process(inputs, outputs)

    def evaluate(self):
        # Gathering needs all processes, so every member is asked everywhere, also where its figures are dropped.
        answers = [member.evaluate() for member in self._evaluators]
        joined = {}
        for answer in answers if comm.is_main_process() else ():
            for task, figures in (answer or {}).items():
                assert task not in joined, f"More than one evaluator has figures under the same key {task}."
                joined[task] = figures
        return joined


def inference_on_dataset(
    model: Callable,
    data_loader: Iterable,
    evaluator: DatasetEvaluator | list[DatasetEvaluator] | None,
    callbacks: dict[str, Callable[[], object]] | None = None,
):
    """Let a model answer every batch of a loader, without gradients, and evaluate its answers.

    Args:
        model: is called with a batch. An ``nn.Module`` is in eval mode meanwhile and returns to its mode afterwards.
        data_loader: must have a length.
        evaluator: gets each batch and its answers. A list stands for :class:`DatasetEvaluators`; with None, the loop
            merely takes the time.
        callbacks: what else to call, by time: ``on_start`` and ``on_end`` of the loop, ``before_inference`` and
            ``after_inference`` of each batch. All may be left out.

    Returns:
        what ``evaluator.evaluate()`` returns, or an empty dict in place of None.
    """
    if evaluator is None or isinstance(evaluator, list):
        evaluator = DatasetEvaluators(evaluator or [])
    callbacks = callbacks or {}

    def call(name: str) -> None:
        if name in callbacks:
            callbacks[name]()

    stopwatch = _Stopwatch(data_loader)
    logging.getLogger(__name__).info(f"Start inference on {stopwatch.batches} batches")
    evaluator.reset()
    with inference_context(model) if isinstance(model, nn.Module) else nullcontext(), torch.no_grad():
        call("on_start")
        for batch in stopwatch:
            call("before_inference")
            with stopwatch.timing("Inference"):
                answers = model(batch)
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
            call("after_inference")
            with stopwatch.timing("Eval"):
                evaluator.process(batch, answers)
        call("on_end")
    stopwatch.summarize()
    figures = evaluator.evaluate()
    return figures if figures is not None else {}


@contextmanager
def inference_context(model: nn.Module) -> Iterator[None]:
    """``with inference_context(model):`` puts the model into eval mode and later back into the mode it was in."""
    mode = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(mode)


class _Stopwatch:
    """Iterates over a loader, measures on what its time goes, and logs this every few seconds.

    Attributes:
        batches: length of the loader.
    """

    def __init__(self, data_loader: Iterable):
        assert isinstance(data_loader, Sized), "Inference needs a data loader with a length."
        self.loader, self.batches = data_loader, len(data_loader)
        self.untimed = max(0, min(UNTIMED_BATCHES, self.batches - 1))
        self._start_over()

    def _start_over(self) -> None:
        self.begin, self.timed, self.seconds = time.perf_counter(), 0, dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """The time of a ``with`` block belongs to this part."""
        begin = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - begin

    def __iter__(self) -> Iterator:
        batches = iter(self.loader)
        for number in count(1):
            with self.timing("Dataloading"):
                batch = next(batches, self)
            if batch is self:  # which no loader returns, so this one is at its end
                return
            if number == self.untimed + 1:
                self._start_over()
            self.timed += 1
            yield batch
            # A report needs some batches to average over, or batches so slow that one says enough.
            if self.timed > self.untimed or self.seconds["Inference"] > 5 * self.timed:
                self._report(number)

    def _report(self, number: int) -> None:
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
            logging.getLogger(__name__).info(
                f"Total inference {what}: {timedelta(seconds=int(seconds * self.timed))} "
                f"({seconds:.6f} s / iter per device, on {comm.get_world_size()} devices)"
            )
