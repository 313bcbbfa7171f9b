"""D2Zero's protocol: the classes of a data set, which of them may be predicted, and checks of the config."""

from dataclasses import dataclass
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from PADing.class_space import ClassSpace
from PADing.errors import UserError


@dataclass(frozen=True)
class Candidates:
    """The classes that compete on one data set.

    Attributes:
        names: the classes whose embeddings the classifier gets, in the order of its logits.
        seen, unseen: columns of the seen and of the unseen classes. On a data set of unseen classes only, ``unseen`` is
            in the order of its contiguous ids.
    """

    names: tuple[str, ...]
    seen: tuple[int, ...]
    unseen: tuple[int, ...]


def shows_all_embeddings(cfg: CfgNode) -> bool:
    """Whether the classifier gets the embeddings of seen classes on data sets of unseen classes, too.

    It does with ``VEC_PATH``, as published, unless ``UNIFY_TEXTS`` is True.
    """
    return cfg.MODEL.MASK_FORMER.VEC_PATH is not None and not cfg.MODEL.D2ZERO.UNIFY_TEXTS


def candidates_of(metadata: Any, show_all: bool) -> Candidates:
    """The classes of an evaluation set; ``show_all``: see :func:`shows_all_embeddings`."""
    space = ClassSpace.of(metadata, "instance")
    names = space.vocabulary if space.only_unseen and show_all else space.class_names
    column = {name: i for i, name in enumerate(names)}
    return Candidates(
        names=names,
        seen=tuple(column[name] for name in names if name not in space.unseen_names),
        unseen=tuple(column[name] for name in space.class_names if name in space.unseen_names),
    )


def own_test_metadata(cfg: CfgNode) -> Any:
    """Metadata of the first evaluation set with the classes of the model's split; else those of the training set."""
    metadata = [MetadataCatalog.get(name) for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN)]
    return next(m for m in metadata if not m.get("evaluation_only"))


def training_classes(cfg: CfgNode) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the seen classes in the order of training labels, and of the unseen classes."""
    space = ClassSpace.of(MetadataCatalog.get(cfg.DATASETS.TRAIN[0]), "instance")
    return space.class_names, space.unseen_names


def check_config(cfg: CfgNode) -> None:
    """Check that the parts of a config fit together.

    Raises:
        UserError: names the misfit and the key to change.
    """
    test = cfg.MODEL.MASK_FORMER.TEST
    for key in ("SEMANTIC_ON", "PANOPTIC_ON"):
        if test[key]:
            raise UserError(f"D2Zero segments instances only. Set MODEL.MASK_FORMER.TEST.{key} False.")
    if not cfg.DATASETS.TRAIN or not cfg.DATASETS.TEST:
        raise UserError("D2Zero takes its classes from DATASETS.TRAIN and DATASETS.TEST. Neither may be empty.")
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
    for metadata in filter(lambda m: not m.get("evaluation_only"), map(MetadataCatalog.get, cfg.DATASETS.TEST)):
        check_protocol(metadata, test.GENERALIZED)


def check_protocol(metadata: Any, generalized: bool) -> None:
    """UserError if an evaluation set does not fit the setting, generalized (GZSIS) or unseen-only (ZSIS).

    Otherwise unseen classes would get the labels of seen classes.
    """
    space = ClassSpace.of(metadata, "instance")
    if space.only_unseen and generalized:
        raise UserError(
            f"Evaluation set {space.data_set!r} holds unseen classes only. Set MODEL.MASK_FORMER.TEST.GENERALIZED "
            "False (ZSIS), or name a generalized set in DATASETS.TEST."
        )
    if not space.only_unseen and not generalized:
        raise UserError(
            f"MODEL.MASK_FORMER.TEST.GENERALIZED is False (ZSIS), but evaluation set {space.data_set!r} also holds "
            "seen classes. Name an unseen-only set in DATASETS.TEST, or set GENERALIZED True."
        )
