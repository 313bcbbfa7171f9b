"""Which classes a model predicts on an evaluation set: its own, or those of a set of other classes; and distractors."""

from collections.abc import Iterator
from contextlib import contextmanager

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from torch import nn

from PADing.class_space import ClassSpace
from PADing.data.training_groups import TrainingGroups
from PADing.engine.distractors import with_distractors
from PADing.errors import UserError
from PADing.evaluation.distractors import DistractorsAreWrong
from PADing.meta_arch.contract import architecture_of, check_takes_vocabulary, contract_of
from PADing.meta_arch.named_classes import NamedClasses, given_embeddings, is_evaluation_only
from PADing.meta_arch.vocabulary import use_vocabulary


class PredictedClasses:
    """What an evaluation on one data set needs to know.

    Attributes:
        classes: number of the set's classes.
        distractors: number of further classes that the model predicts.
        groups: which classes the model has seen in training; None for a set of the model's own classes.
    """

    def __init__(self, classes: int = 0, distractors: int = 0, groups: TrainingGroups | None = None):
        self.classes, self.distractors, self.groups = classes, distractors, groups

    def around(self, evaluator: DatasetEvaluator) -> DatasetEvaluator:
        """The evaluator, told the groups, and for which distractors are wrong."""
        if isinstance(evaluator, DatasetEvaluators):
            return DatasetEvaluators([self.around(part) for part in evaluator._evaluators])
        if self.groups is not None and hasattr(evaluator, "groups"):
            evaluator.groups = self.groups
        return DistractorsAreWrong(evaluator, self.classes) if self.distractors else evaluator


@contextmanager
def predicted_classes(
    cfg: CfgNode, model: nn.Module, data_set: str, distractors: bool = True
) -> Iterator[PredictedClasses]:
    """For a block that evaluates: the model predicts the classes of the data set, and the config's distractors, if any.

    ``distractors`` False: without distractors.

    Raises:
        UserError: the model takes no vocabulary; class embeddings are missing or come from another source; the file of
            distractors is wrong or has too few classes.
    """
    metadata = MetadataCatalog.get(data_set)
    contract_of(model).set_test_metadata(metadata)
    named = NamedClasses(cfg, metadata) if is_evaluation_only(data_set) else None
    distractors = distractors and bool(cfg.TEST.DISTRACTORS)
    if named is None and not distractors:
        yield PredictedClasses()
        return
    check_takes_vocabulary(model)
    if distractors:
        vocabulary = with_distractors(cfg, metadata, named)
    else:
        assert named is not None
        vocabulary = named.vocabulary()
    classes = len(ClassSpace.of(metadata))
    use_vocabulary(model, vocabulary)
    try:
        yield PredictedClasses(classes, len(vocabulary.entries) - classes, named.groups if named else None)
    finally:
        use_vocabulary(model, None)


def named_class_problems(cfg: CfgNode) -> Iterator[str]:
    """Mistakes in evaluation sets of other classes that show before a model is built."""
    if own := [name for name in cfg.DATASETS.TRAIN if is_evaluation_only(name)]:
        yield (
            f"DATASETS.TRAIN names {own[0]}, which is for evaluation alone. Name the set that the model was trained "
            f"on, and {own[0]} in DATASETS.TEST."
        )
        return
    names = [name for name in cfg.DATASETS.TEST if is_evaluation_only(name)]
    architecture = architecture_of(cfg)
    try:
        if not names:
            if cfg.TEST.CLASS_EMBEDDINGS:
                given_embeddings(cfg)
            return
        if architecture is not None:
            check_takes_vocabulary(architecture)
        test = cfg.MODEL.MASK_FORMER.TEST
        for name in names:
            if (
                ClassSpace.of(MetadataCatalog.get(name)).kind == "panoptic"
                and test.INSTANCE_ON
                and not test.PANOPTIC_ON
            ):
                # Instances of stuff classes would be predicted, which no evaluator knows.
                raise UserError(
                    f"{name} (DATASETS.TEST) is a panoptic set, but this config computes instances without panoptic "
                    f"results. Name the set's instances: {name.replace('panoptic', 'instance')}."
                )
            NamedClasses(cfg, MetadataCatalog.get(name)).vocabulary()
    except UserError as error:
        yield str(error)
