"""Evaluation over the images that can be read; the result says how many were left out."""

import logging
from collections.abc import Iterable

import torch
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, inference_on_dataset
from detectron2.utils import comm

from PADing.errors import UserError

__all__ = ["evaluate_readable"]

logger = logging.getLogger(__name__)


def evaluate_readable(model: torch.nn.Module, loader: Iterable, evaluator: DatasetEvaluator):
    """``inference_on_dataset``; images that ``loader`` lists as ``unreadable`` count in no metric.

    Their annotation is left out too, as if the data set were without them. When there are any, the result has a further
    entry, ``{"left_out": {"images": n}}``.

    Args:
        model: as for ``inference_on_dataset``.
        loader: batches of dicts; may have an attribute ``unreadable``, the records that it passed over.
        evaluator: its parts need a method ``leave_out(records)`` when images are unreadable.

    Raises:
        UserError: no image could be read, or an evaluator cannot leave images out.
    """
    return inference_on_dataset(model, loader, _OfReadable(evaluator, loader))


class _OfReadable(DatasetEvaluator):
    def __init__(self, evaluator: DatasetEvaluator, loader: Iterable):
        self.evaluator, self.loader = evaluator, loader
        self.processed = 0

    def reset(self) -> None:
        self.processed = 0
        self.evaluator.reset()

    def process(self, inputs, outputs) -> None:
        self.evaluator.process(inputs, outputs)
        self.processed += len(inputs)

    def evaluate(self):
        # Slow processes are waited for here: objects are exchanged by a group that has less patience.
        comm.synchronize()
        parts = comm.all_gather((self.processed, list(getattr(self.loader, "unreadable", ()))))
        records = [record for _, part in parts for record in part]
        if records:
            self._leave_out(records, sum(processed for processed, _ in parts))
        results = self.evaluator.evaluate()
        if records and results is not None:
            results["left_out"] = {"images": len(records)}
        return results

    def _leave_out(self, records: list[dict], processed: int) -> None:
        names = ", ".join(str(record["file_name"]) for record in records[:3]) + (" ..." if len(records) > 3 else "")
        if not processed:
            raise UserError(f"No image of the evaluation set can be read, e.g. {names}.")
        logger.warning(
            "%d images cannot be read (%s). They and their annotation count in no metric below, so these metrics are "
            "not comparable with those over all images.",
            len(records),
            names,
        )
        evaluators = [self.evaluator]
        while evaluators:
            one = evaluators.pop()
            if isinstance(one, DatasetEvaluators):
                evaluators += one._evaluators
            elif hasattr(one, "leave_out"):
                one.leave_out(records)
            else:
                raise UserError(
                    f"{type(one).__name__} cannot leave out images that cannot be read ({names}): it has no method "
                    "leave_out(records). Mend the images, or remove them from the data set."
                )
