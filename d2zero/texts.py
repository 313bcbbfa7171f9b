"""Which classes a data set asks for, and their embeddings. What does not fit together is refused here."""

import os
from dataclasses import dataclass
from functools import lru_cache

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import Tensor

from PADing.data.embeddings import load_class_embeddings, resolve_embedding_path
from PADing.errors import UserError

__all__ = ["Answers", "ClassTexts", "check_config", "check_protocol", "training_classes"]


@dataclass(frozen=True)
class Answers:
    """What a model may answer on one data set.

    Attributes:
        names: the classes whose texts the classifier sees, in the order of its logits.
        seen, unseen: columns of the seen and of the unseen classes. Those of ``unseen`` are in the order of the data
            set's contiguous ids when it holds unseen classes only.
    """

    names: tuple[str, ...]
    seen: tuple[int, ...]
    unseen: tuple[int, ...]


class ClassTexts:
    """The class embeddings of a run; the file is read once.

    Args:
        path: embedding file.
        vocabulary: all classes of the training set's split, which are those of a ``.txt`` file in column order.
        all_texts: in unseen-only sets, show the classifier the texts of seen classes too.
    """

    def __init__(self, path: str, vocabulary: tuple[str, ...], all_texts: bool) -> None:
        self.path, self.vocabulary, self.all_texts = path, vocabulary, all_texts
        self._rows: dict[str, Tensor] = {}

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "ClassTexts":
        """The file that the config names; UserError when it does not exist, with the command that makes it."""
        all_texts = cfg.MODEL.MASK_FORMER.VEC_PATH is not None and not cfg.MODEL.D2ZERO.UNIFY_TEXTS
        path = resolve_embedding_path(cfg)
        vocabulary = _vocabulary(MetadataCatalog.get(cfg.DATASETS.TRAIN[0]))
        return _class_texts(path, os.stat(path).st_mtime_ns, vocabulary, all_texts)

    def vectors(self, names: tuple[str, ...]) -> Tensor:
        """Embeddings (len(names), S) float32, as stored; UserError that lists the classes which the file lacks."""
        if not self._rows.keys() >= set(names):
            wanted = tuple(dict.fromkeys((*self.vocabulary, *names)))
            vectors = load_class_embeddings(self.path, wanted, self.vocabulary)
            self._rows = dict(zip(wanted, vectors, strict=True))
        return torch.stack([self._rows[name] for name in names])

    def answers(self, metadata) -> Answers:
        """The classes of a test set."""
        classes, unseen = _classes(metadata), set(metadata.get("evaluation_set") or ())
        only_unseen = unseen.issuperset(classes)
        names = _vocabulary(metadata) if only_unseen and self.all_texts else classes
        column = {name: i for i, name in enumerate(names)}
        return Answers(
            names=names,
            seen=tuple(column[name] for name in names if name not in unseen),
            unseen=tuple(column[name] for name in classes if name in unseen),
        )


@lru_cache(maxsize=4)
def _class_texts(path: str, changed: int, vocabulary: tuple[str, ...], all_texts: bool) -> ClassTexts:
    """One object for decoder, criterion and model; another one when the file has changed."""
    return ClassTexts(path, vocabulary, all_texts)


def training_classes(cfg: CfgNode) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the seen classes, by training label, and of the unseen ones, which no training image shows."""
    metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
    return _classes(metadata), tuple(metadata.get("evaluation_set") or ())


def check_config(cfg: CfgNode) -> None:
    """Refuse a config whose parts do not fit together.

    Raises:
        UserError: what does not fit, and which key to change.
    """
    test = cfg.MODEL.MASK_FORMER.TEST
    for key in ("SEMANTIC_ON", "PANOPTIC_ON"):
        if test[key]:
            raise UserError(f"D2Zero segments instances only. Set MODEL.MASK_FORMER.TEST.{key} False.")
    if not cfg.DATASETS.TRAIN or not cfg.DATASETS.TEST:
        raise UserError("D2Zero takes its classes from DATASETS.TRAIN and DATASETS.TEST; neither may be empty.")
    name = cfg.DATASETS.TRAIN[0]
    seen, unseen = training_classes(cfg)
    both = [c for c in seen if c in unseen]
    if both:
        raise UserError(
            f"Training set {name!r} shows unseen classes ({', '.join(both[:5])} ...). D2Zero trains on an instance set "
            "with `subset: seen` and `class_order: seen_first` in its split file."
        )
    if cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES != len(seen):
        raise UserError(
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES}, but training set {name!r} has "
            f"{len(seen)} classes. D2Zero counts the seen classes only."
        )
    if cfg.MODEL.D2ZERO.UNSEEN_LOSS_WEIGHT and not unseen:
        raise UserError(
            f"MODEL.D2ZERO.UNSEEN_LOSS_WEIGHT is set, but training set {name!r} names no unseen classes "
            "(`evaluation_set` in its metadata)."
        )
    for name in cfg.DATASETS.TEST:
        check_protocol(MetadataCatalog.get(name), test.GENERALIZED)


def check_protocol(metadata, generalized: bool) -> None:
    """Refuse a test set that does not belong to the generalized (GZSIS) or the unseen-only (ZSIS) setting.

    Otherwise labels of unseen classes would be written under the numbers of seen ones.
    """
    only_unseen = set(metadata.get("evaluation_set") or ()).issuperset(_classes(metadata))
    if only_unseen and generalized:
        raise UserError(
            f"Test set {metadata.name!r} holds unseen classes only. Set MODEL.MASK_FORMER.TEST.GENERALIZED False "
            "(ZSIS), or name a generalized set in DATASETS.TEST."
        )
    if not only_unseen and not generalized:
        raise UserError(
            f"MODEL.MASK_FORMER.TEST.GENERALIZED is False (ZSIS), but test set {metadata.name!r} also holds seen "
            "classes. Name an unseen-only set in DATASETS.TEST, or set GENERALIZED True."
        )


def _classes(metadata) -> tuple[str, ...]:
    classes = metadata.get("thing_classes")
    if not classes:
        raise UserError(
            f"Data set {metadata.name!r} has no `thing_classes` in its metadata. Is it registered, and for instances?"
        )
    return tuple(classes)


def _vocabulary(metadata) -> tuple[str, ...]:
    return tuple(metadata.get("vocabulary") or _classes(metadata))
