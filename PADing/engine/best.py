"""The best checkpoint by a metric of the evaluations, and the end of a training that no longer improves."""

import logging
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from PADing.checkpoint_files import read_checkpoint
from PADing.errors import UserError, did_you_mean, refuse

logger = logging.getLogger(__name__)

BEST = "model_best"
# Switch under MODEL.MASK_FORMER.TEST -> tasks that its evaluator reports, for the data sets of these types.
TASKS = {
    "SEMANTIC_ON": ("sem_seg",),
    "PANOPTIC_ON": ("panoptic_seg",),
    "INSTANCE_ON": ("bbox", "segm", "bbox_zsi", "segm_zsi"),
}
KNOWN_TYPES = {"sem_seg", "sem_seg_gzero", "coco", "coco_instance_gzero", "coco_panoptic_seg"}
SHOWN = 40  # names of metrics in a message; those of single classes come last


class StoppedByPatience(BaseException):
    """Ends the loop of a training that no longer improves; not an ``Exception``, so it is not logged as a failure."""


class BestCheckpoint(HookBase):
    """Writes ``model_best.pth`` when ``TEST.BEST.METRIC`` is better than before, and stops by ``TEST.BEST.PATIENCE``.

    It comes after the hook that evaluates. Its state is in every checkpoint. A periodic checkpoint is written before
    the evaluation of the same iteration, so a resumed training first makes up for an evaluation that is not in its
    state; its decisions are then those of an uninterrupted one.

    Attributes:
        value: the best value; None before the first one that is a finite number.
        iteration: the iteration, counted from 0, after which it was reached; -1: none.
        waited: evaluations since then.
        evaluated: the last evaluated iteration; -1: none.
    """

    trainer: Any  # a PADing.engine.trainer.Trainer

    def __init__(self, cfg: CfgNode):
        node = cfg.TEST.BEST
        self.metric, self.patience, self.period = node.METRIC, node.PATIENCE, cfg.TEST.EVAL_PERIOD
        self.sign = 1 if node.MODE == "max" else -1
        self._forget()

    def _forget(self) -> None:
        self.value: float | None = None
        self.iteration, self.waited, self.evaluated = -1, 0, -1

    @property
    def exhausted(self) -> bool:
        """Whether ``TEST.BEST.PATIENCE`` evaluations have not improved."""
        return 0 < self.patience <= self.waited

    def before_train(self) -> None:
        """After a resume: take over ``model_best.pth``, and evaluate if the evaluation of its checkpoint is missing."""
        done = self.trainer.start_iter - 1
        if done < 0:
            return
        if comm.is_main_process():
            self._take_over(done)
        missing = self.period > 0 and (done + 1) % self.period == 0 and self.evaluated < done
        if missing and done + 1 < self.trainer.max_iter:
            logger.info("The checkpoint was written before the evaluation of iteration %d, which is made up for.", done)
            self.trainer.evaluate_after(done)
            self._judge(done)

    def _take_over(self, done: int) -> None:
        """Use the record in ``model_best.pth`` if it is newer than the state of the checkpoint, but not of its future.

        That is the case after the last evaluation of a training that is resumed with a larger ``SOLVER.MAX_ITER``.
        """
        path = Path(self.trainer.cfg.OUTPUT_DIR, f"{BEST}.pth")
        if not path.is_file():
            return
        try:
            record = _checked(read_checkpoint(path, "The best checkpoint").get("best"))
        except (UserError, ValueError) as error:
            logger.warning("%s cannot be compared with, so a later model may replace it: %s", path, error)
            return
        newer = self.evaluated < record["iteration"] <= done
        if newer and self._is_same_metric(record) and self._is_better(record["value"]):
            self.value, self.iteration, self.waited = record["value"], record["iteration"], 0

    def after_step(self) -> None:
        """Judge the evaluation, if there was one after this iteration."""
        done = self.trainer.iter + 1
        if self.period > 0 and done % self.period == 0 and done < self.trainer.max_iter:
            self._judge(self.trainer.iter)

    def after_train(self) -> None:
        """Judge the last evaluation, if all iterations are done."""
        if self.trainer.iter >= self.trainer.max_iter and self.evaluated < self.trainer.max_iter - 1:
            self._judge(self.trainer.max_iter - 1, last=True)

    def _judge(self, iteration: int, last: bool = False) -> None:
        problems = []
        if comm.is_main_process():
            metrics = flatten_results_dict(self.trainer.latest_results() or {})
            if self.metric in metrics:
                self._compare(float(metrics[self.metric]), iteration)
            else:
                problems = [unknown_metric(self.metric, metrics)]
        # All processes stop together, or the others would wait forever.
        problems, exhausted = comm.all_gather((problems, self.exhausted))[0]
        refuse(problems)
        self.evaluated = iteration
        if exhausted and not last:
            raise StoppedByPatience

    def _compare(self, value: float, iteration: int) -> None:
        self.evaluated = iteration  # part of the state that is saved below
        shown = f"{self.metric} is {value:.4f} after iteration {iteration}"
        if self._is_better(value):
            before = "" if self.value is None else f" (before: {self.value:.4f} after iteration {self.iteration})"
            logger.info("%s, the best so far%s. It is saved as %s.pth.", shown, before, BEST)
            self.value, self.iteration, self.waited = value, iteration, 0
            self.trainer.checkpointer.save_beside(BEST, iteration=iteration, best=self._record())
            return
        if iteration != self.iteration:  # a repeated evaluation of the best model is no failure to improve
            self.waited += 1
        best = "there is no best value yet" if self.value is None else f"the best is {self.value:.4f} after iteration "
        best += "" if self.value is None else str(self.iteration)
        left = f"; evaluations without improvement: {self.waited} of {self.patience}" if self.patience else ""
        logger.info("%s; %s%s.", shown, best, left)

    def _is_better(self, value: float) -> bool:
        return math.isfinite(value) and (self.value is None or self.sign * (value - self.value) > 0)

    def _is_same_metric(self, record: Mapping) -> bool:
        return record["metric"] == self.metric and record["mode"] == self._mode

    @property
    def _mode(self) -> str:
        return "max" if self.sign > 0 else "min"

    def _record(self) -> dict[str, Any]:
        return {"metric": self.metric, "mode": self._mode, "value": self.value, "iteration": self.iteration}

    def state_dict(self) -> dict[str, Any]:
        """The record of the best evaluation, and how many have come since."""
        return self._record() | {"waited": self.waited, "evaluated": self.evaluated}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue; start afresh if the metric or the mode is another one. ValueError if the state is damaged."""
        record = _checked(state, ("waited", "evaluated"))
        if not self._is_same_metric(record):
            logger.info("The checkpoint knows the best %s (%s), but TEST.BEST asks for %s (%s), which starts afresh.",
                        record["metric"], record["mode"], self.metric, self._mode)  # fmt: skip
            return
        self.value, self.iteration = record["value"], record["iteration"]
        self.waited, self.evaluated = record["waited"], record["evaluated"]


def _checked(record: Any, counts: tuple[str, ...] = ()) -> dict[str, Any]:
    """A record of ``BestCheckpoint`` from a file; ValueError if it is damaged."""
    try:
        value = record["value"]
        numbers = [record[name] for name in ("iteration", *counts)]
        texts = [record["metric"], record["mode"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"its entry on the best metric is damaged or missing ({error})") from error
    fits = value is None or type(value) is float and math.isfinite(value)
    if not (fits and all(type(n) is int and n >= -1 for n in numbers) and all(type(t) is str for t in texts)):
        raise ValueError("its entry on the best metric is damaged")
    return dict(record)


def unknown_metric(name: str, metrics: Collection[str]) -> str:
    """The message for a metric that an evaluation does not report; lists similar names, or those that there are."""
    if not metrics:
        return f'TEST.BEST.METRIC is {name!r}, but the evaluation gave no metrics. Set it to "".'
    ordered = sorted(metrics, key=lambda metric: ("-" in metric.rpartition("/")[2], metric))
    more = f", and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    known = f"There are: {', '.join(ordered[:SHOWN])}{more}."
    return f"TEST.BEST.METRIC is {name!r}, which the evaluation does not report{did_you_mean(name, metrics)}. {known}"


def best_problems(cfg: CfgNode) -> Iterator[str]:
    """What can be wrong with ``TEST.BEST`` before anything is evaluated, for the check at the start of a training."""
    node, sets = cfg.TEST.BEST, cfg.DATASETS.TEST
    if not node.METRIC:
        if node.PATIENCE > 0:
            yield "TEST.BEST.PATIENCE needs TEST.BEST.METRIC, which is empty. Set one such as panoptic_seg/PQ_hm."
        return
    if node.PATIENCE > 0 and cfg.TEST.EVAL_PERIOD <= 0:
        yield "TEST.BEST.PATIENCE counts evaluations, but TEST.EVAL_PERIOD is 0 (only at the end). Set it above 0."
    name, several = node.METRIC, len(sets) > 1
    data_set, _, rest = name.partition("/")
    if several and data_set not in sets:
        hint = did_you_mean(data_set, sets)
        yield f"TEST.BEST.METRIC is {name!r}. With several sets in DATASETS.TEST, write SET/TASK/METRIC{hint}: " + (
            f"the sets are {', '.join(map(str, sets))}."
        )
        return
    task, slash, metric = (rest if several else name).partition("/")
    if not (task and slash and metric):
        yield f"TEST.BEST.METRIC is {name!r}. Write {'SET/' * several}TASK/METRIC, such as panoptic_seg/PQ_hm."
        return
    types = {MetadataCatalog.get(each).get("evaluator_type") for each in ([data_set] if several else sets)}
    if types <= KNOWN_TYPES:
        known = [each for switch, tasks in TASKS.items() if cfg.MODEL.MASK_FORMER.TEST[switch] for each in tasks]
        if task not in known:
            hint = did_you_mean(task, known) or f" (there are: {', '.join(known)})"
            yield f"TEST.BEST.METRIC is {name!r}, but {task!r} is not evaluated{hint}."
