"""Shared by the evaluators: classes, gathering from all processes, images to leave out, written files."""

import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sized
from typing import Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, inference_on_dataset
from detectron2.utils import comm
from PIL import Image

from PADing.checkpoint_files import write_checkpoint
from PADing.class_space import ClassSpace
from PADing.data.training_groups import GROUPS, TrainingGroups
from PADing.errors import UserError
from PADing.evaluation.processes import Processes
from PADing.evaluation.results import log_table
from PADing.files import replacing, write_json
from PADing.progress import close_bar, show_bar

logger = logging.getLogger(__name__)


class ZeroShotEvaluator(DatasetEvaluator):
    """Base of the evaluators. A subclass stores an object per image in ``items`` and scores them at the end.

    With several processes, each has the images that it has predicted. It scores them itself where it can; what the main
    process needs from the others should be small, and travels in small parts.

    Args:
        dataset_name: registered name.
        kind: what to evaluate: "instance", "panoptic" or "semantic".
        distributed: gather from all processes.
        output_dir: folder for results; None: write nothing.

    Attributes:
        items: one picklable object per image.
        left_out: ids, as text, of unreadable images.
        groups: which classes the model has seen in training, for evaluation sets of other classes.
    """

    groups: TrainingGroups | None = None

    def __init__(self, dataset_name: str, kind: str, distributed: bool, output_dir: str | None):
        self.metadata = MetadataCatalog.get(dataset_name)
        self.classes = ClassSpace.of(self.metadata, "" if kind == "panoptic" else kind)
        self.kind = kind
        self.distributed = distributed
        self.output_dir = output_dir
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self.items: list = []
        self.left_out: set[str] = set()

    def leave_out(self, records: Iterable[dict]) -> None:
        """Ignore the annotation of unreadable images until the next ``reset``."""
        self.left_out.update(str(record.get("image_id")) for record in records)

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Call ``process_image`` for each dataset dict of a batch and the model's output for it."""
        key = {"instance": "instances", "panoptic": "panoptic_seg", "semantic": "sem_seg"}[self.kind]
        for record, output in zip(inputs, outputs, strict=True):
            if key not in output:
                raise UserError(f"The model gives no `{key}`: set MODEL.MASK_FORMER.TEST.{self.kind.upper()}_ON True.")
            self.process_image(record, output[key])

    def process_image(self, record: dict, prediction: Any) -> None:
        """Append an object for one image to ``items``."""
        raise NotImplementedError

    def evaluate(self) -> dict | None:
        """The results in the main process, None in the others.

        Raises:
            UserError: in all processes, also if one of them alone has found a mistake.
        """
        if self.distributed:
            comm.synchronize()
        return self.score(Processes(self.distributed))

    def score(self, processes: Processes) -> dict | None:
        """As ``evaluate``; all processes call it together. This one lets the main process summarize all ``items``.

        A subclass whose items are large should gather less.
        """
        items = processes.items(self.items)
        return processes.on_main(lambda: self.summarize(items or []))

    def summarize(self, items: list) -> dict:
        """Compute the results from the items of all processes, and write them if there is an output folder."""
        raise NotImplementedError

    def by_training(
        self, task: str, metrics: Mapping[str, Callable[[frozenset[int]], float]], measured: Collection[int]
    ) -> dict[str, dict[str, float]]:
        """A further entry of the results, ``<task>_by_training``; empty for a model of the set's own classes.

        Args:
            task: entry of the results that has the same metrics over all classes.
            metrics: see ``TrainingGroups.summary``.
            measured: contiguous ids of the classes that are in the means.
        """
        if self.groups is None:
            return {}
        groups = self.groups.of(self.classes.names)
        entry = groups.summary(metrics)
        rows = [
            [GROUPS[name], *(entry[f"{metric}_{name}"] for metric in metrics), len(ids), len(ids & set(measured))]
            for name, ids in groups.members.items()
        ]
        number, total = len(groups.members["seen"]), len(groups.class_names)
        share = f"{number} of {total} classes ({groups.share:.1f} %) are seen in training"
        log_table(f"{task} on {self.classes.data_set}, {share}", rows, ["", *metrics, "#classes", "#measured"])
        if self.output_dir:
            write_json(self.path("classes_by_training.json"), self.groups.per_class(), indent=1)
        return {f"{task}_by_training": entry}

    def starred(self, contiguous_id: int) -> str:
        """The name of a class, with a star if it is unseen."""
        return self.classes.names[contiguous_id] + ("*" if contiguous_id in self.classes.unseen else "")

    def per_class(self, values: Iterable[dict]) -> list[dict]:
        """Rows of the results file: id, name, whether unseen, and ``values`` of each class, by contiguous id."""
        return [
            {"id": self.classes.dataset_ids[i], "name": name, "unseen": i in self.classes.unseen, **own}
            for (i, name), own in zip(self.classes.names.items(), values, strict=True)
        ]

    def path(self, *parts: str) -> str:
        """A path in the output folder."""
        assert self.output_dir is not None
        return os.path.join(self.output_dir, *parts)

    def write_results(self, name: str, results: dict) -> None:
        """Write the name of the data set and ``results`` as JSON."""
        write_json(self.path(name), {"data_set": self.classes.data_set, **results}, indent=2)

    def save_objects(self, content: Any, name: str) -> None:
        """Write Python objects to the output folder."""
        write_checkpoint(self.path(name), content)  # torch.save alone hides errors of the disk

    def save_png(self, pixels: np.ndarray, *parts: str) -> None:
        """Write an image to the output folder."""
        with replacing(self.path(*parts), sync=False) as temporary:
            Image.fromarray(pixels).save(temporary)


def evaluate_readable(model: torch.nn.Module, loader: Iterable, evaluator: DatasetEvaluator):
    """``inference_on_dataset`` without the images that ``loader`` lists as ``unreadable``.

    Their annotation is left out, too, as if the data set did not have them. If there are any, the results have a
    further entry, ``{"left_out": {"images": n}}``. The same holds for the images beyond ``TEST.MAX_IMAGES``.

    Args:
        model: as for ``inference_on_dataset``.
        loader: batches of dicts; may have ``unreadable``, the records that it skipped, and ``beyond``.
        evaluator: it, or each of its parts, needs a method ``leave_out(records)`` if images are unreadable.

    Raises:
        UserError: no image could be read, or an evaluator cannot leave images out.
    """
    try:
        return inference_on_dataset(model, loader, _OfReadable(evaluator, loader))
    finally:
        close_bar()


class _OfReadable(DatasetEvaluator):
    def __init__(self, evaluator: DatasetEvaluator, loader: Iterable):
        self.evaluator, self.loader = evaluator, loader

    def reset(self) -> None:
        self.processed = 0
        self.evaluator.reset()
        batches = len(self.loader) if isinstance(self.loader, Sized) else 0
        self.bar = show_bar("evaluation", batches) if comm.is_main_process() else None

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        self.evaluator.process(inputs, outputs)
        self.processed += len(inputs)
        if self.bar is not None:
            self.bar.step(len(inputs) * comm.get_world_size())  # the other processes are about as fast

    def evaluate(self) -> dict | None:
        close_bar()
        # Wait for slow processes here: the group that exchanges objects has a shorter timeout.
        comm.synchronize()
        parts = comm.all_gather((self.processed, list(getattr(self.loader, "unreadable", ()))))
        records = [record for _, part in parts for record in part]
        processed = sum(number for number, _ in parts)
        if records:
            self._report(records, processed)
        if beyond := list(getattr(self.loader, "beyond", ())):
            logger.warning("TEST.MAX_IMAGES: %d of %d images are evaluated; the metrics below are those of a trial.",
                           processed, processed + len(records) + len(beyond))  # fmt: skip
        if records or beyond:
            self._leave_out([*records, *beyond])
        results = self.evaluator.evaluate()
        if results is not None and (records or beyond):
            results["left_out"] = {"images": len(records) + len(beyond)}
        return results

    def _report(self, records: list[dict], processed: int) -> None:
        names = ", ".join(str(record["file_name"]) for record in records[:3]) + (" ..." if len(records) > 3 else "")
        if not processed:
            raise UserError(f"No image of the evaluation set can be read, e.g. {names}.")
        logger.warning(
            f"{len(records)} images cannot be read ({names}). They and their annotation are left out of the metrics "
            "below, which are not comparable with metrics over all images."
        )

    def _leave_out(self, records: list[dict]) -> None:
        names = ", ".join(str(record["file_name"]) for record in records[:3]) + (" ..." if len(records) > 3 else "")
        evaluators = [self.evaluator]
        while evaluators:
            one = evaluators.pop()
            if isinstance(one, DatasetEvaluators):
                evaluators += one._evaluators
            elif hasattr(one, "leave_out"):
                one.leave_out(records)
            else:
                raise UserError(
                    f"{type(one).__name__} cannot leave out unreadable images ({names}): it has no method "
                    "leave_out(records). Repair the images, or remove them from the data set; set TEST.MAX_IMAGES 0."
                )
