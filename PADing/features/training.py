"""Trains and evaluates a second stage on feature folders: its own model, losses, recipe and results, without images.

Such a model takes its inputs from two calls, ``match`` in training and ``segment`` in inference. Both are answered
from a folder here; everything else is the code that ``train_net.py`` runs.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from detectron2.structures import ImageList
from torch import Tensor

from PADing.engine.stream import POSITION, StreamLoader
from PADing.engine.trainer import Trainer
from PADing.errors import UserError
from PADing.features.folder import Evaluated, FeatureFolder, data_hash, images_of
from PADing.features.model import check_fits, check_second_stage

__all__ = ["FeatureStream", "feature_trainer"]

ORDER = 32  # key of random numbers, beside seed and pass
_FEATURES, _CLASSES = "features", "query_classes"


class FeatureStream:
    """``stream[p]`` is the p-th training record, as ``PADing.engine.stream.TrainingStream`` is the p-th sample.

    With the seed of the folder, the first passes have the order in which they were written, that of a training on
    images. Later passes, and those of another seed, repeat the stored ones in an order drawn from the seed.
    """

    def __init__(self, folder: FeatureFolder, seed: int):
        self.folder, self.seed = folder, seed
        self._drawn, self._order = -1, np.empty(0, dtype=np.int64)

    def reseed(self, seed: int) -> None:
        """Start the data order of ``seed`` from its beginning."""
        self.seed, self._drawn = seed, -1

    def __len__(self) -> int:
        return len(self.folder)

    def record(self, position: int) -> int:
        """The record at a position."""
        header = self.folder.header
        number, place = divmod(position, header.images)
        if self.seed == header.seed and number < header.passes:
            return position
        if number != self._drawn:
            self._drawn = number
            self._order = _shuffled(header.images, header.records_per_shard, [ORDER, self.seed, number])
        return number % header.passes * header.images + int(self._order[place])

    def __getitem__(self, position: int) -> dict[str, Any]:
        kept = self.folder.trained(self.record(position))
        classes = np.where(kept.classes < 0, len(self.folder.header.classes), kept.classes)
        return {_FEATURES: torch.from_numpy(kept.features), _CLASSES: torch.from_numpy(classes), POSITION: position}


def _shuffled(number: int, size: int, entropy: Sequence[int]) -> np.ndarray:
    """A random order of ``number`` records that stays in one block of ``size`` at a time, so that each is opened once.

    Both the blocks and the records in each are shuffled.
    """
    draws = np.random.default_rng(entropy)
    blocks = [np.arange(first, min(first + size, number)) for first in range(0, number, size)]
    return np.concatenate([draws.permutation(blocks[i]) for i in draws.permutation(len(blocks))])


class _Matches:
    """Answers ``match`` from the records of a batch."""

    def __init__(self, model: Any, unmatched: int):
        self.model, self.unmatched = model, unmatched

    def __call__(self, batch: list[dict]) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        device = self.model.device
        features = torch.stack([sample[_FEATURES] for sample in batch]).to(device)
        classes = torch.stack([sample[_CLASSES] for sample in batch]).to(device)
        image, query = (classes != self.unmatched).nonzero(as_tuple=True)
        return features, classes, classes[image, query], (image, query)


class _Evaluated:
    """Batches of one image's record each, for the evaluation; the images themselves are not read."""

    def __init__(self, folder: FeatureFolder, records: Sequence[dict], most: int):
        self.folder = folder
        self.records = list(records)[: most or None]
        self.beyond, self.unreadable = list(records)[len(self.records) :], list[dict]()

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[list[dict]]:
        for number, record in enumerate(self.records):
            yield [{**{key: value for key, value in record.items() if key != "annotations"}, _FEATURES: number}]


class _Answers:
    """Answers ``preprocess`` and ``segment`` in an evaluation."""

    def __init__(self, model: Any, folder: FeatureFolder):
        self.model, self.folder = model, folder
        self.current: Evaluated | None = None

    def preprocess(self, batch: list[dict]) -> ImageList:
        """The sizes of the padded batch; its pixels take no memory."""
        (sample,) = batch
        self.current = kept = self.folder.evaluated(sample[_FEATURES])
        pixel = torch.zeros(1, 1, 1, 1, device=self.model.device)
        return ImageList(pixel.expand(1, 3, *kept.padded), [kept.size])

    def segment(self, _: ImageList) -> dict[str, Tensor]:
        """The segmenter's outputs."""
        kept, device = self.current, self.model.device
        assert kept is not None
        values = {"pred_embed": kept.features, "pred_logits": kept.logits, "pred_masks": kept.masks}
        return {key: torch.from_numpy(np.ascontiguousarray(value))[None].to(device) for key, value in values.items()}


def feature_trainer(train: str | Path | None, val: str | Path | None) -> Callable[[CfgNode], type[Trainer]]:
    """A function that makes the trainer class of a config, on features of the parts "train" and "val".

    Without ``val`` nothing is evaluated. UserError if a folder does not fit the config, or is damaged.
    """

    def made(cfg: CfgNode) -> type[Trainer]:
        check_second_stage(cfg)
        training, validation = (
            FeatureFolder(path, part) if path is not None else None for path, part in ((train, "train"), (val, "val"))
        )
        if training is not None:
            check_fits(training, cfg, None, ",".join(cfg.DATASETS.TRAIN))
        if validation is not None:
            if len(cfg.DATASETS.TEST) != 1:
                raise UserError("A feature folder holds one evaluation set. Name one in DATASETS.TEST.")
            check_fits(validation, cfg, None, cfg.DATASETS.TEST[0])
        return type("FeatureTrainer", (_FeatureTrainer,), {"training": training, "validation": validation})

    return made


class _FeatureTrainer(Trainer):
    training: FeatureFolder | None = None
    validation: FeatureFolder | None = None
    # Features of another stage 1 are refused when the weights are loaded.
    _trusted = False

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> StreamLoader:
        assert cls.training is not None
        stream = FeatureStream(cls.training, cfg.SEED if cfg.SEED >= 0 else 0)

        def batches(sampler, shares) -> Iterator[list[dict]]:
            size, positions = cfg.SOLVER.IMS_PER_BATCH // shares.number, iter(sampler)
            while True:
                yield [stream[next(positions)] for _ in range(size)]

        return StreamLoader(batches, stream)  # type: ignore[arg-type]

    def resume_or_load(self, resume: bool = True) -> None:
        """As in the base class; then the segmenter is answered from the folder, if it is that of the weights."""
        super().resume_or_load(resume)
        assert self.training is not None
        for folder in filter(None, (self.training, self.validation)):
            names = self.cfg.DATASETS.TRAIN if folder is self.training else self.cfg.DATASETS.TEST
            check_fits(folder, self.cfg, self.model, ",".join(names))
        type(self)._trusted = True
        model: Any = self.model
        model.match = _Matches(model, len(self.training.header.classes))

    @classmethod
    def test(cls, cfg: CfgNode, model, evaluators=None, averaged: bool = False):
        """As in the base class, on the cached evaluation set; without one, no results."""
        folder = cls.validation
        if folder is None:
            return {}
        if not cls._trusted:
            check_fits(folder, cfg, model, cfg.DATASETS.TEST[0])
        answers = _Answers(model, folder)
        model.preprocess, model.segment = answers.preprocess, answers.segment
        try:
            return super().test(cfg, model, evaluators, averaged)
        finally:
            del model.preprocess, model.segment

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        """The records of the data set, whose annotation the evaluators read."""
        assert cls.validation is not None
        records: Any = get_detection_dataset_dicts([dataset_name], filter_empty=False)
        images = images_of(records)
        if data_hash(images) != cls.validation.header.data_sha256:
            raise UserError(_other_images(cls.validation, images, dataset_name))
        return _Evaluated(cls.validation, records, cfg.TEST.MAX_IMAGES)


def _other_images(folder: FeatureFolder, images: Sequence[dict], data_set: str) -> str:
    pairs = zip(images, folder.images, strict=False)
    odd = next((f", the first at image {own['id']}" for own, kept in pairs if own != kept), "")
    number = f"{len(images)} images here, {len(folder.images)} there"
    return (
        f"{folder.path} was written for other images or another annotation of {data_set} than those in "
        f"$DETECTRON2_DATASETS ({number}{odd}). Use the same annotation, or write the features again."
    )
