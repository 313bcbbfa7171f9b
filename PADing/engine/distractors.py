"""Evaluation with distractors: further class names, of which no image has any (``TEST.DISTRACTORS``)."""

from collections.abc import Iterator
from contextlib import contextmanager

from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from torch import nn

from PADing.class_space import ClassSpace
from PADing.data.vocabulary import Entry
from PADing.errors import UserError
from PADing.evaluation.distractors import DistractorsAreWrong
from PADing.meta_arch.contract import architecture_of
from PADing.meta_arch.vocabulary import (
    Vocabulary,
    VocabularyMaker,
    check_takes_vocabulary,
    own_classes,
    use_vocabulary,
)
from PADing.meta_arch.vocabulary_file import is_vocabulary_file, read_vocabulary


class Distraction:
    """What an evaluation on one data set needs: the ``evaluator`` to use, and the number of distractors, or 0."""

    def __init__(self, classes: int = 0, distractors: int = 0):
        self.classes, self.distractors = classes, distractors

    def around(self, evaluator: DatasetEvaluator) -> DatasetEvaluator:
        """The evaluator, for which distractors are wrong."""
        if not self.distractors:
            return evaluator
        if isinstance(evaluator, DatasetEvaluators):
            return DatasetEvaluators([self.around(part) for part in evaluator._evaluators])
        return DistractorsAreWrong(evaluator, self.classes)


@contextmanager
def distracted(cfg: CfgNode, model: nn.Module, data_set: str) -> Iterator[Distraction]:
    """For a block that evaluates: the model also predicts the distractors that the config names, if any.

    Raises:
        UserError: the model takes no vocabulary; the file is wrong, has too few classes, or comes from another source.
    """
    if not cfg.TEST.DISTRACTORS:
        yield Distraction()
        return
    check_takes_vocabulary(model)
    metadata = MetadataCatalog.get(data_set)
    vocabulary = with_distractors(cfg, metadata)
    classes = len(ClassSpace.of(metadata))
    use_vocabulary(model, vocabulary)
    try:
        yield Distraction(classes, len(vocabulary.entries) - classes)
    finally:
        use_vocabulary(model, None)


def with_distractors(cfg: CfgNode, metadata: Metadata) -> Vocabulary:
    """The classes of a data set, class i being contiguous id i, and after them ``TEST.NUM_DISTRACTORS`` others."""
    path, wanted = cfg.TEST.DISTRACTORS, cfg.TEST.NUM_DISTRACTORS
    maker = VocabularyMaker(cfg, own_classes(cfg, metadata))
    others = [entry for entry in read_vocabulary(path)[0] if maker.known(entry) < 0]
    if maker.own.kind == "instance":
        others = [entry for entry in others if entry.isthing]
    if len(others) < max(wanted, 1):
        raise UserError(
            f"TEST.DISTRACTORS {path} has {len(others)} classes that the model does not know, but TEST.NUM_DISTRACTORS "
            f"is {wanted}. Set a lower number, or name a file with more."
        )
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
