"""The hook of tracked trainings: starts the runs, and draws predictions at evaluations."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import HookBase
from torch.nn.parallel import DistributedDataParallel

from PADing.data.dataset_mappers import EvaluationMapper
from PADing.engine.predicted_classes import predicted_classes
from PADing.engine.rng import preserved_rng
from PADing.output_names import output_names
from PADing.tracking.writer import FOLDER, TrackingWriter
from PADing.visualization import ImageDrawer, read_rgb, write_rgb

logger = logging.getLogger(__name__)


class TrackingHook(HookBase):
    """Starts the runs of ``writers``, and sends drawings of predictions after each evaluation. Main process only.

    The drawings are also files, ``tracking/images/<iteration>_<set>_<image>.png``. It comes after the hook that
    evaluates.
    """

    trainer: Any  # a PADing.engine.trainer.Trainer

    def __init__(self, cfg: CfgNode, writers: Sequence[TrackingWriter]):
        self.cfg, self.writers, self.number = cfg, writers, cfg.TRACKING_RUN.IMAGES
        self._records: dict[str, list[dict]] = {}
        self._failed = False

    def before_train(self) -> None:
        """Start the runs."""
        for writer in self.writers:
            writer.start(resume=self.trainer.checkpointer.resumed)

    def after_step(self) -> None:
        """Draw after an evaluation."""
        done, period = self.trainer.iter + 1, self.cfg.TEST.EVAL_PERIOD
        if period > 0 and done % period == 0 and done < self.trainer.max_iter:
            self._draw(self.trainer.iter)

    def after_train(self) -> None:
        """Draw after the last evaluation, and tell the writers whether the training is complete."""
        complete = self.trainer.is_complete()
        for writer in self.writers:
            writer.complete = complete
        if self.trainer.iter >= self.trainer.max_iter:
            self._draw(self.trainer.iter)

    def _draw(self, iteration: int) -> None:
        if not self.number or self._failed:
            return
        try:
            average = self.trainer.average  # evaluated in place of the last weights
            with average.applied() if average is not None else nullcontext():
                files = draw_predictions(self.cfg, self.trainer.model, iteration, self.number, self._records)
        except Exception as error:  # a drawing is not worth a training
            self._failed = True
            logger.warning("Predictions cannot be drawn (%s: %s), so none are tracked.", type(error).__name__, error)
            return
        for writer in self.writers:
            writer.write_images(files, iteration)


def draw_predictions(
    cfg: CfgNode, model: torch.nn.Module, iteration: int, number: int, records: dict[str, list[dict]]
) -> dict[str, Path]:
    """Draw what ``model`` predicts for the first ``number`` images of each set of ``DATASETS.TEST``.

    ``records`` keeps the records from call to call. Returns name -> file; names are the same at each evaluation. The
    model's mode and the random states stay as they are.
    """
    bare = model.module if isinstance(model, DistributedDataParallel) else model
    mapper, folder, files = EvaluationMapper(cfg), Path(cfg.OUTPUT_DIR, FOLDER, "images"), {}
    mode = bare.training
    bare.eval()
    try:
        for data_set in cfg.DATASETS.TEST:
            if data_set not in records:
                records[data_set] = list(islice(DatasetCatalog.get(data_set), number))
            metadata = MetadataCatalog.get(data_set)
            drawer = ImageDrawer(metadata)
            names = output_names(record["file_name"] for record in records[data_set])
            with predicted_classes(cfg, bare, data_set, distractors=False):
                for record in records[data_set]:
                    sample = mapper(record)
                    if "image" not in sample:
                        continue  # unreadable, which the evaluation has logged
                    with torch.no_grad(), preserved_rng():
                        output = bare([sample])[0]
                    name = names[str(record["file_name"])].replace("/", "_")
                    path = folder / f"{iteration:07d}_{data_set}_{name}"
                    write_rgb(path, drawer.draw_output(read_rgb(record["file_name"]), output))
                    files[f"predictions/{data_set}/{name.removesuffix('.png')}"] = path
    finally:
        bare.train(mode)
    return files
