"""Computes once what a frozen segmenter makes of all images of a fold, for any number of second stages.

``features.npz`` in the segmenter's folder holds, for d-dimensional features of Q queries:

- ``train_features`` (N, 2, Q, d) and ``train_classes`` (N, 2, Q): the fold's training images, as they are and mirrored;
- ``other_features``, ``other_classes``: the training images that show unseen classes, which only oracles may use;
- ``other_known`` (N', Q): the same where segments of unseen classes are not annotated, for self-training;
- ``train_covered`` (N, 2, Q), ``other_covered`` (N', Q) float32: the share of each mask on annotated pixels of seen
  classes;
- ``val_features`` (M, Q, d), ``val_logits`` (M, Q, K + 1), ``val_masks`` (M, Q, h, w), ``val_images`` (M,);
- ``found``: see ``minibench.folds.regions``.

A class is a position in the data set's classes, K for an unmatched query. Matching draws random points; it is done
once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from torch import Tensor

from minibench.folds.regions import found_segments
from minibench.folds.truth import Truth
from PADing.data.dataset_mappers import build_mapper
from PADing.engine.checkpointer import TrainingCheckpointer
from PADing.engine.rng import seeded_rng
from PADing.engine.trainer import Trainer
from PADing.errors import UserError
from PADing.files import replacing
from PADing.generation.frozen_segmenter import FrozenSegmenter
from PADing.generation.self_training import covered_share

__all__ = ["Features", "compute", "frozen_model", "mapped", "read_features", "write_features"]

BATCH = 16
_KEY = 20  # of the random points of the matching


@dataclass(frozen=True)
class Features:
    """The content of ``features.npz``, see the module; float32 and int64."""

    train_features: np.ndarray
    train_classes: np.ndarray
    other_features: np.ndarray
    other_classes: np.ndarray
    other_known: np.ndarray
    train_covered: np.ndarray
    other_covered: np.ndarray
    val_features: np.ndarray
    val_logits: np.ndarray
    val_masks: np.ndarray
    val_images: np.ndarray
    found: np.ndarray


def read_features(path: Path) -> Features:
    """Read the file; UserError if it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return Features(**{field.name: content[field.name] for field in fields(Features)})
    except Exception as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Delete it and run the same command again."
        ) from error


def write_features(path: Path, features: Features) -> None:
    """Write the file; it appears when it is complete."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **{field.name: getattr(features, field.name) for field in fields(Features)})


def frozen_model(cfg: CfgNode) -> FrozenSegmenter:
    """The model of a second stage with the weights that it starts from; UserError if its segmenter is not frozen."""
    model = Trainer.build_model(cfg)
    if not isinstance(model, FrozenSegmenter):
        raise UserError(
            f"{type(model).__name__} does not train on a frozen segmenter (PADing.generation.frozen_segmenter), so it "
            "cannot be trained on cached features."
        )
    model.begin_second_stage()  # type: ignore[operator]
    TrainingCheckpointer(model, cfg.OUTPUT_DIR).resume_or_load(cfg.MODEL.WEIGHTS, resume=False)
    return model


@torch.no_grad()
def compute(cfg: CfgNode, truth: Truth, all_classes: str) -> Features:
    """Run the segmenter of a second stage's config.

    Args:
        cfg: names weights, the fold's training set and its validation set.
        truth: annotation of the validation set.
        all_classes: the training set without unseen classes.
    """
    model = frozen_model(cfg)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.RANDOM_FLIP = "none"
    mapper = build_mapper(cfg)
    model.eval()
    with seeded_rng(_KEY):
        own = _records(cfg.DATASETS.TRAIN, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
        known = {record["image_id"] for record in own}
        others = [record for record in _records([all_classes], True) if record["image_id"] not in known]
        samples = mapped(mapper, own)
        both = [_matched(model, part) for part in (samples, [_mirrored(sample) for sample in samples])]
        other = _matched(model, mapped(mapper, others))
    outputs = _outputs(model, cfg, truth)
    features, classes, _, covered = (np.stack(parts, axis=1) for parts in zip(*both, strict=True))
    return Features(
        features,
        classes,
        other[0],
        other[1],
        other[2],
        covered,
        other[3],
        outputs["pred_embed"],
        outputs["pred_logits"],
        outputs["pred_masks"],
        np.array(truth.images),
        found_segments(truth, outputs["pred_masks"]),
    )


def mapped(mapper, records: Sequence[dict]) -> list[dict]:
    """All records as training examples."""
    return [sample for sample in map(mapper, records) if sample is not None]


def _records(names: Sequence[str], filter_empty: bool) -> list[dict]:
    return list(get_detection_dataset_dicts(list(names), filter_empty=filter_empty))  # type: ignore[arg-type]


def _mirrored(sample: dict) -> dict:
    from detectron2.structures import Instances

    before = sample["instances"]
    instances = Instances(before.image_size)
    instances.gt_classes, instances.gt_masks = before.gt_classes, before.gt_masks.flip(-1)
    return {**sample, "image": sample["image"].flip(-1), "instances": instances}


def _matched(model: FrozenSegmenter, samples: Sequence[dict]) -> tuple[np.ndarray, ...]:
    """Query features (N, Q, d), their classes (N, Q), both as in ``_WithoutUnseen`` (N, Q)."""
    without = _WithoutUnseen(model)
    features, classes = [], []
    for start in range(0, len(samples), BATCH):
        found, labels, _, _ = model.match(list(samples[start : start + BATCH]))
        features.append(found.numpy())
        classes.append(labels.numpy())
    without.end()
    if not features:
        shape = 0, model.num_queries
        none = np.zeros(shape, dtype=np.int64)
        return np.zeros((*shape, 1), dtype=np.float32), none, none, np.zeros(shape, dtype=np.float32)
    return tuple(map(np.concatenate, (features, classes, without.classes, without.covered)))


class _WithoutUnseen:
    """What queries are if segments of unseen classes are not annotated; listens to ``model.match`` until ``end``."""

    def __init__(self, model: FrozenSegmenter):
        self.model = cast(Any, model)
        self.unseen: Tensor = self.model.classes.unseen
        self.classes: list[np.ndarray] = []  # (B, Q) each
        self.covered: list[np.ndarray] = []  # (B, Q) each, see ``covered_share``
        self.model.label_unmatched = self._note

    def _note(self, classes: Tensor, outputs: dict[str, Tensor], targets: list[dict[str, Tensor]]) -> Tensor:
        known, annotated = [], []
        for target in targets:
            seen = ~torch.isin(target["labels"], self.unseen)
            known.append({key: value[seen] for key, value in target.items()})
            annotated.append(target["masks"][seen].bool().any(0))
        changed = any(len(own["labels"]) < len(whole["labels"]) for own, whole in zip(known, targets, strict=True))
        own = self.model.criterion.match(outputs, known)[0] if changed else classes
        self.classes.append(own.numpy())
        self.covered.append(covered_share(outputs["pred_masks"], torch.stack(annotated)).numpy())
        return classes

    def end(self) -> None:
        """Listen no longer."""
        del self.model.label_unmatched


def _outputs(model: FrozenSegmenter, cfg: CfgNode, truth: Truth) -> dict[str, np.ndarray]:
    """The segmenter's outputs on the validation images, in the order of ``truth``."""
    keys = ("pred_embed", "pred_logits", "pred_masks")
    parts: list[dict[str, np.ndarray]] = []
    cfg = cfg.clone()
    cfg.defrost()
    cfg.TEST.MAX_IMAGES = 0
    for batch in validation_batches(cfg, truth):
        outputs = model.segment(model.preprocess(batch))
        parts.append({key: outputs[key].numpy() for key in keys})
    return {key: np.concatenate([part[key] for part in parts]) for key in keys}


def validation_batches(cfg: CfgNode, truth: Truth) -> Iterator[list[dict]]:
    """The validation images of a config, at least ``BATCH`` at a time.

    Raises:
        UserError: at the end, if they are not the images of ``truth`` in its order.
    """
    met: list[int] = []
    batch: list[dict] = []
    for records in Trainer.build_test_loader(cfg, cfg.DATASETS.TEST[0]):
        batch += records
        met += [int(record["image_id"]) for record in records]
        if len(batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
    check_order(met, truth)


def check_order(images: Sequence[int], truth: Truth) -> None:
    """UserError if predictions are of other images than the annotation, or in another order."""
    if list(images) != list(truth.images):
        raise UserError(
            "The validation set and its annotation have other images, or another order. Draw the data again."
        )
