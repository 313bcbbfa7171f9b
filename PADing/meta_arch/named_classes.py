"""Evaluation sets of other classes: the model predicts their classes by name, as a vocabulary.

A split file says ``evaluation_only: true``, and its data sets can then be named in ``DATASETS.TEST`` of any model that
takes a vocabulary. A class whose name the model knows (``PADing.data.class_names``) keeps what the model has learned
about it; the others are new.
"""

from collections.abc import Sequence
from dataclasses import replace

from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog

from PADing.class_space import ClassSpace
from PADing.data.class_names import distinct_names, match_classes
from PADing.data.embeddings import find_embeddings, read_class_embeddings
from PADing.data.evaluation_vectors import KEY, EvaluationVectors
from PADing.data.training_groups import TrainingGroups
from PADing.data.vocabulary import Entry
from PADing.errors import UserError
from PADing.meta_arch.vocabulary import Vocabulary, VocabularyMaker, own_classes


class NamedClasses:
    """The classes of an evaluation set, and the model's own among them.

    Args:
        cfg: of the model.
        metadata: of the evaluation set.

    Attributes:
        entries: the classes with their synonyms, by contiguous id.
        found: for each class its position among the model's own, -1 for a new one.
        groups: which classes the model has seen in training.
    """

    def __init__(self, cfg: CfgNode, metadata: Metadata):
        space = ClassSpace.of(metadata)
        own = own_classes(cfg, MetadataCatalog.get(cfg.DATASETS.TRAIN[0]))
        names = [(name, *space.synonyms.get(i, ())) for i, name in space.names.items()]
        things = [i in space.things or space.kind == "semantic" for i in space.names]
        self.entries = [Entry(own_, thing) for own_, thing in zip(distinct_names(names), things, strict=True)]
        self.found = match_classes(names, own.vocabulary)
        unseen = set(own.unseen_names)
        matched = {i: own.vocabulary[k] for i, k in enumerate(self.found) if k >= 0}
        # A training set of seen classes alone may have a split that names further, unused ones; they are in no list.
        self.groups = TrainingGroups(
            class_names=tuple(space.names.values()),
            matched=matched,
            unseen=frozenset(i for i, name in matched.items() if name in unseen),
        )
        self.maker = VocabularyMaker(cfg, replace(own, kind=space.kind))
        path = given_embeddings(cfg)

        def vectors_from(file: str, rows: dict, vectors: str, _: str) -> EvaluationVectors:
            return EvaluationVectors(file, rows, path, metadata.split_file, vectors)

        self.maker.vectors_from = vectors_from

    def vocabulary(self, further: Sequence[Entry] = (), vectors: str = "") -> Vocabulary:
        """The vocabulary in which class i is contiguous id i, with ``further`` new classes after those of the set.

        Args:
            further: their class embeddings are in the .npz ``vectors``, too.

        Raises:
            UserError: as :class:`EvaluationVectors`; the model has no class embeddings.
        """
        found = [*self.found, *(-1 for _ in further)]
        return self.maker.make([*self.entries, *further], given=vectors, found=found)


def given_embeddings(cfg: CfgNode) -> str:
    """The path of the file that ``TEST.CLASS_EMBEDDINGS`` names; "" for none. UserError if it does not exist."""
    name = cfg.TEST.CLASS_EMBEDDINGS
    path = find_embeddings(name) if name else ""
    if path is None:
        raise UserError(f"{KEY} {name} does not exist. Make it with tools/class_embeddings.py, or check the path.")
    if path:
        read_class_embeddings(path)
    return path


def is_evaluation_only(name: str) -> bool:
    """Whether a registered data set is for the evaluation of models of other classes."""
    return bool(MetadataCatalog.get(name).get("evaluation_only"))
