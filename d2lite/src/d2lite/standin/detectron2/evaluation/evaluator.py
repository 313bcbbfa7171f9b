"""The evaluator interface, and inference over a data loader with a progress log."""

import datetime
import logging
import time
from collections import OrderedDict, abc
from contextlib import ExitStack, contextmanager

import torch
from detectron2.utils.comm import get_world_size, is_main_process
from detectron2.utils.logger import log_every_n_seconds
from torch import nn

__all__ = ["DatasetEvaluator", "DatasetEvaluators", "inference_context", "inference_on_dataset"]

WARMUP_ITERATIONS = 5
LOG_PERIOD_SECONDS = 5


class DatasetEvaluator:
    """Base class: takes pairs of inputs and outputs of a model, and finally computes figures."""

    def reset(self):
        """Forget everything; called before each new evaluation."""

    def process(self, inputs, outputs):
        """Take one batch: the model's input list, and its output list of the same length."""

    def evaluate(self):
        """Compute the figures: ``{task: {metric: number}}``, or None on processes that have none."""


class DatasetEvaluators(DatasetEvaluator):
    """Several evaluators that see the same batches; their results are merged."""

    def __init__(self, evaluators):
        super().__init__()
        self._evaluators = evaluators

    def reset(self):
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs, outputs):
        for evaluator in self._evaluators:
            evaluator.process(inputs, outputs)

    def evaluate(self):
        results = OrderedDict()
        for evaluator in self._evaluators:
            result = evaluator.evaluate()
            if is_main_process() and result is not None:
                for key, value in result.items():
                    assert key not in results, f"Different evaluators produce results with the same key {key}"
                    results[key] = value
        return results


def inference_on_dataset(model, data_loader, evaluator, callbacks=None):
    """Run ``model`` in eval mode, without gradients, over ``data_loader``; return what the evaluator makes of it.

    Args:
        model: a callable, usually an ``nn.Module``, whose mode is restored afterwards.
        data_loader: an iterable with a length; its items are the model's inputs.
        evaluator: a :class:`DatasetEvaluator`, a list of them, or None to only measure speed.
        callbacks: functions without arguments under the keys "start", "before_inference", "after_inference", "end".

    Returns:
        The evaluator's result, an empty dict instead of None.
    """
    devices = get_world_size()
    logger = logging.getLogger(__name__)
    logger.info(f"Start inference on {len(data_loader)} batches")
    total = len(data_loader)  # a loader without a length cannot be evaluated
    if evaluator is None:
        evaluator = DatasetEvaluators([])
    elif isinstance(evaluator, abc.MutableSequence):
        evaluator = DatasetEvaluators(evaluator)
    evaluator.reset()
    call = {"start": None, "before_inference": None, "after_inference": None, "end": None} | (callbacks or {})

    def run(name):
        if call[name] is not None:
            call[name]()

    warmup = min(WARMUP_ITERATIONS, total - 1)
    clock = _Clock()
    with ExitStack() as stack:
        if isinstance(model, nn.Module):
            stack.enter_context(inference_context(model))
        stack.enter_context(torch.no_grad())
        clock.mark("data")
        run("start")
        for index, inputs in enumerate(data_loader):
            clock.add("data")
            if index == warmup:
                clock.restart()
            run("before_inference")
            clock.mark("compute")
            outputs = model(inputs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            clock.add("compute")
            run("after_inference")
            clock.mark("eval")
            evaluator.process(inputs, outputs)
            clock.add("eval")

            done = index + 1 - warmup * int(index >= warmup)
            per_iteration = clock.elapsed() / done
            if index >= warmup * 2 or clock.spent["compute"] / done > 5:
                eta = datetime.timedelta(seconds=int(per_iteration * (total - index - 1)))
                log_every_n_seconds(
                    logging.INFO,
                    f"Inference done {index + 1}/{total}. "
                    f"Dataloading: {clock.spent['data'] / done:.4f} s/iter. "
                    f"Inference: {clock.spent['compute'] / done:.4f} s/iter. "
                    f"Eval: {clock.spent['eval'] / done:.4f} s/iter. "
                    f"Total: {per_iteration:.4f} s/iter. "
                    f"ETA={eta}",
                    n=LOG_PERIOD_SECONDS,
                )
            clock.mark("data")
        run("end")

    # Warm-up is not measured.
    measured = max(total - warmup, 1)
    for title, seconds in (("time", clock.elapsed()), ("pure compute time", clock.spent["compute"])):
        text = str(datetime.timedelta(seconds=int(seconds)))
        per_device = f"{seconds / measured:.6f} s / iter per device, on {devices} devices"
        logger.info(f"Total inference {title}: {text} ({per_device})")

    results = evaluator.evaluate()
    return {} if results is None else results


@contextmanager
def inference_context(model: nn.Module):
    """Eval mode for the duration of a ``with`` block."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


class _Clock:
    """Seconds spent on each part of an iteration."""

    def __init__(self):
        self.restart()
        self._marks = {}

    def restart(self):
        self.spent = {"data": 0.0, "compute": 0.0, "eval": 0.0}
        self._start = time.perf_counter()

    def mark(self, part):
        self._marks[part] = time.perf_counter()

    def add(self, part):
        self.spent[part] += time.perf_counter() - self._marks[part]

    def elapsed(self):
        return time.perf_counter() - self._start
