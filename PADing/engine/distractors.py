"""Evaluation with distractors: further class names, of which no image has any (``TEST.DISTRACTORS``)."""

from collections.abc import Iterator

from detectron2.config import CfgNode
from detectron2.data import Metadata

from PADing.class_space import ClassSpace
from PADing.data.class_names import normalized
from PADing.data.vocabulary import Entry
from PADing.errors import UserError
from PADing.meta_arch.contract import architecture_of, check_takes_vocabulary
from PADing.meta_arch.named_classes import NamedClasses
from PADing.meta_arch.vocabulary import (
    Vocabulary,
    VocabularyMaker,
    own_classes,
)
from PADing.meta_arch.vocabulary_file import is_vocabulary_file, read_vocabulary


def with_distractors(cfg: CfgNode, metadata: Metadata, named: NamedClasses | None = None) -> Vocabulary:
    """The classes of a data set, class i being contiguous id i, and after them ``TEST.NUM_DISTRACTORS`` others.

    ``named``: the classes of a set of other classes than the model's.
    """
    path, wanted = cfg.TEST.DISTRACTORS, cfg.TEST.NUM_DISTRACTORS
    maker = named.maker if named else VocabularyMaker(cfg, own_classes(cfg, metadata))
    others = [entry for entry in read_vocabulary(path)[0] if maker.known(entry) < 0]
    if named:
        there = {normalized(name) for entry in named.entries for name in entry.names}
        others = [entry for entry in others if not there & {normalized(name) for name in entry.names}]
    if maker.own.kind == "instance":
        others = [entry for entry in others if entry.isthing]
    if len(others) < max(wanted, 1):
        raise UserError(
            f"TEST.DISTRACTORS {path} has {len(others)} classes that the model does not know, but TEST.NUM_DISTRACTORS "
            f"is {wanted}. Set a lower number, or name a file with more."
        )
    if named:
        return named.vocabulary(others[: wanted or None], path)
    entries = [Entry((name,)) for name in ClassSpace.of(metadata).class_names]
    return maker.make([*entries, *others[: wanted or None]], given=path, in_order=True)


def distractor_problems(cfg: CfgNode) -> Iterator[str]:
    """Mistakes in ``TEST.DISTRACTORS`` that show before a model is built."""
    path = cfg.TEST.DISTRACTORS
    if not path:
        return
    try:
        if architecture_of(cfg) is not None:
            check_takes_vocabulary(architecture_of(cfg))
        if not is_vocabulary_file(path):
            raise UserError(f"TEST.DISTRACTORS is {path!r}. Name an .npz of class embeddings.")
        read_vocabulary(path)
    except UserError as error:
        yield str(error)
