"""The class embeddings of a config: class names come from its data sets, embeddings from its file."""

import logging
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import Tensor

from PADing.class_space import ClassSpace
from PADing.data.embeddings import (
    OtherClasses,
    find_embeddings,
    load_class_embeddings,
    load_synonyms,
    making_command,
    resolve_embedding_path,
)
from PADing.errors import UserError

logger = logging.getLogger(__name__)


class ClassEmbeddings:
    """Class embeddings by name, read from one file.

    Args:
        path: an ``.npz`` or ``.txt`` file.
        names: the classes to read.
        columns: the classes of a ``.txt`` file, which has no names, in the order of its columns.

    Raises:
        UserError: the file cannot be read or lacks classes (the message names all of them).
    """

    def __init__(self, path: str, names: Sequence[str], columns: Sequence[str]):
        self.path, self.columns = path, columns
        self._rows: dict[str, Tensor] = {}
        self.of(names)

    @classmethod
    def of_config(cls, cfg: CfgNode, space: ClassSpace) -> "ClassEmbeddings":
        """The embeddings of the vocabulary of ``space``; ``resolve_embedding_path`` chooses the file.

        If ``VEC_PATH`` is for another split, ``MODEL.CLASS_EMBEDDINGS`` replaces it; if that is for another split, too,
        the file that the split names replaces it. So your own data set needs no other config. A file that is damaged
        or lacks only some of the classes is refused, because other embeddings would hide the mistake.

        Raises:
            UserError: there is no file, it is damaged, or no file has the classes.
        """
        columns = [*space.seen_names, *(space.vocabulary[i] for i in space.unseen_outputs)]
        path = resolve_embedding_path(cfg)
        try:
            return cls(path, space.vocabulary, columns)
        except OtherClasses as error:
            metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
            key, named = "The split file", metadata.get("class_embeddings") or ""
            if cfg.MODEL.MASK_FORMER.VEC_PATH is not None and cfg.MODEL.CLASS_EMBEDDINGS:
                key, named = "MODEL.CLASS_EMBEDDINGS", cfg.MODEL.CLASS_EMBEDDINGS
            own = find_embeddings(named) if named else None
            if own == path or not named:
                raise
            if own is None:
                command = making_command(metadata.split_file, named)
                raise UserError(
                    f"{error} {key} names {named}, which does not exist. Make it with: {command}"
                ) from error
            logger.warning("%s is for another split. %s names another file, which is used instead: %s.", path, key, own)
            return cls(own, space.vocabulary, columns)

    @property
    def width(self) -> int:
        """The number of dimensions e of an embedding."""
        return len(next(iter(self._rows.values())))

    def of(self, names: Sequence[str]) -> Tensor:
        """Embeddings (len(names), e) float32, not normalised; UserError names the classes that the file lacks."""
        if not self._rows.keys() >= set(names):
            wanted = list(dict.fromkeys((*self._rows, *names)))
            self._rows = dict(zip(wanted, load_class_embeddings(self.path, wanted, self.columns), strict=True))
        return torch.stack([self._rows[name] for name in names])

    def synonyms_of(self, names: Sequence[str]) -> tuple[Tensor, Tensor] | None:
        """All embeddings of classes, if the file keeps synonyms apart; see ``load_synonyms``."""
        return load_synonyms(self.path, names)


def output_classes(cfg: CfgNode) -> ClassSpace:
    """The class space whose vocabulary matches the model's outputs: of the training set, or else an evaluation set.

    Raises:
        UserError: no data set of the config has ``MODEL.SEM_SEG_HEAD.NUM_CLASSES`` classes in its split.
    """
    spaces = [ClassSpace.of(MetadataCatalog.get(name)) for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)]
    spaces = [space for space in spaces if not space.evaluation_only]
    count = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    for space in spaces:
        if len(space.vocabulary) == count:
            return space
    raise UserError(
        f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {count}, but the data sets have: "
        + ", ".join(f"{space.data_set} {len(space.vocabulary)} classes" for space in spaces)
    )
