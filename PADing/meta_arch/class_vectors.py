"""The class vectors of a config: names from the data sets' metadata, vectors from the embedding file."""

from collections.abc import Sequence
from typing import NamedTuple

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import Tensor

from PADing.data.embeddings import embedding_width, load_class_embeddings, resolve_embedding_path
from PADing.errors import UserError

# Widths assumed when there is no file to ask; only then does it not matter, because nothing is trained.
CLIP_WIDTH = 512
WORD_VECTOR_WIDTH = 300


class ClassVectors(NamedTuple):
    """Vectors of all classes in the order of the model's outputs, or why there are none."""

    vectors: Tensor | None  # (C, e) float32
    width: int  # e
    problem: str  # what to tell a person who wants to train; empty if there are vectors


def load_vectors(cfg: CfgNode) -> ClassVectors:
    """Vectors of every class that the model of ``cfg`` tells apart.

    Never fails: inference needs no vectors, so what is wrong with them is kept for whoever begins to train.
    """
    width = CLIP_WIDTH if cfg.MODEL.MASK_FORMER.VEC_PATH is None else WORD_VECTOR_WIDTH
    try:
        path = resolve_embedding_path(cfg)
        width = embedding_width(path)
        names, unseen = vocabulary(cfg)
        # Word-vector files hold no names; their columns are seen classes, then unseen ones.
        columns = [n for i, n in enumerate(names) if i not in unseen] + [names[i] for i in unseen]
        return ClassVectors(load_class_embeddings(path, names, file_names=columns), width, "")
    except UserError as error:
        return ClassVectors(None, width, str(error))


def check_second_stage(absent: str | None, unseen: Sequence[int], classes: int, logits: int | None) -> None:
    """Whether PADing's second stage can be trained.

    Args:
        absent: why there are no class vectors; None: there are.
        unseen: positions of the unseen ones among the ``classes`` outputs.
        logits: how many, from the first, the classification term counts; None: those of all seen classes.

    Raises:
        UserError: class vectors are missing; no class is unseen; a seen class would have no logit.
    """
    if absent is not None:
        raise UserError(f"PADing cannot be trained without class embeddings. {absent}")
    if not unseen:
        raise UserError(
            "PADing cannot be trained: the data sets of DATASETS.TRAIN have no unseen class. Name one whose split file "
            "has some."
        )
    last = max(set(range(classes)) - set(unseen), default=-1)
    if logits is not None and last >= logits:
        raise UserError(
            f"MODEL.MASK_FORMER.CLS_SLICE {logits} cuts off seen classes (the last is {last}). Set "
            "MODEL.MASK_FORMER.SEEN_CLS_ONLY True."
        )


def vocabulary(cfg: CfgNode) -> tuple[list[str], list[int]]:
    """Names of all classes in the order of the model's outputs, and the positions of the unseen ones.

    Raises:
        UserError: no data set of the config has ``MODEL.SEM_SEG_HEAD.NUM_CLASSES`` classes.
    """
    counts = {}
    for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        metadata = MetadataCatalog.get(name)
        classes = metadata.get("vocabulary") or metadata.get("stuff_classes") or metadata.get("thing_classes") or []
        counts[name] = len(classes)
        if len(classes) == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES:
            return list(classes), unseen_classes(cfg)
    raise UserError(
        f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES}, but the data sets have: "
        + ", ".join(f"{name} {count} classes" for name, count in counts.items())
    )


def unseen_classes(cfg: CfgNode) -> list[int]:
    """Positions of the unseen classes among the model's outputs, from the first data set that knows them."""
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        index = MetadataCatalog.get(name).get("unseen_index")
        if index is not None:
            return [int(i) for i in index]
    return []
