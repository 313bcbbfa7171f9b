"""The classes of a training, of an evaluation set and of a vocabulary, as tables of text embeddings."""

from collections.abc import Collection, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from frozenclip.class_table import ClassTable
from PADing.class_space import ClassSpace
from PADing.errors import UserError
from PADing.meta_arch.class_embeddings import ClassEmbeddings
from PADing.meta_arch.vocabulary import Vocabulary


def trained_names(cfg: CfgNode) -> frozenset[str]:
    """The classes that training images show."""
    space = ClassSpace.of_config(cfg)
    unseen = set(space.unseen_names) if space.subset != "all" else set()
    return frozenset(space.class_names) - unseen


def table_of(names: Sequence[str], text: ClassEmbeddings, trained: Collection[str]) -> ClassTable:
    """Classes with all their text embeddings: with several, if the file keeps synonyms apart."""
    vectors, owner = text.synonyms_of(names) or (text.of(names), None)
    return ClassTable(vectors, [name in trained for name in names], owner)


def training_table(cfg: CfgNode, text: ClassEmbeddings) -> ClassTable:
    """The classes of the first training set, by contiguous id."""
    return table_of(ClassSpace.of_config(cfg).class_names, text, trained_names(cfg))


def evaluation_table(cfg: CfgNode, text: ClassEmbeddings, data_set: str | Any) -> ClassTable:
    """The classes of an evaluation set (name or metadata), by contiguous id.

    Those of the training set if there is none, or if a vocabulary will tell its classes.

    Raises:
        UserError: classes without embedding.
    """
    if not data_set:
        return training_table(cfg, text)
    metadata = MetadataCatalog.get(data_set) if isinstance(data_set, str) else data_set
    if metadata.get("evaluation_only"):
        return training_table(cfg, text)
    return table_of(ClassSpace.of(metadata).class_names, text, trained_names(cfg))


def vocabulary_table(vocabulary: Vocabulary, own: ClassSpace, trained: frozenset[str]) -> ClassTable:
    """The classes of a vocabulary.

    Args:
        vocabulary: with embeddings from CLIP's text encoder.
        own: the classes that the vocabulary's ``kept`` counts, see ``own_classes``.
        trained: the names that training images show.
    """
    if vocabulary.embeddings is None:
        raise UserError("The vocabulary has no text embeddings, so its classes cannot be compared with images.")
    seen = [known >= 0 and own.vocabulary[known] in trained for known in vocabulary.kept]
    return ClassTable(vocabulary.embeddings, seen)
