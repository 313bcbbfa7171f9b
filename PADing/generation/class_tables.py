"""Tables of the second stage that follow from which classes are unseen: positions, embeddings, weights in the loss."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from PADing.class_space import ClassSpace
from PADing.data.embeddings import embedding_width, resolve_embedding_path
from PADing.errors import UserError
from PADing.meta_arch.class_embeddings import ClassEmbeddings, output_classes

# Published widths of class embeddings.
CLIP_WIDTH, WORD_VECTOR_WIDTH = 512, 300


class ClassTables(nn.Module):
    """Tensors about C classes, U of them unseen, that move with the model and stay out of its checkpoints.

    Args:
        embeddings: (C, e) float32, the class embeddings.
        unseen: positions of the unseen classes.
        among_seen: seen classes are told apart among seen classes only, else among all.
        unseen_weight, no_object_weight: in the classifier's loss; seen classes have 1.
        missing: why ``embeddings`` are not those of the classes, so that only inference is possible; else "".

    Attributes:
        unseen, seen: (U,), (C - U,) int64 positions. seen_row: (C,) int64, the place of a class in ``seen``.
        embeddings: (k, e), of the classes that are told apart. row: (C,) int64, the row of each class there.
        unseen_embeddings: (U, e).
        loss_weight: (C + 1,) float32, "no object" last.

    An unseen class without a row has one beyond the end, so that using it is an error.
    """

    unseen: Tensor
    seen: Tensor
    seen_row: Tensor
    embeddings: Tensor
    row: Tensor
    unseen_embeddings: Tensor
    loss_weight: Tensor

    def __init__(
        self,
        embeddings: Tensor,
        unseen: Sequence[int],
        among_seen: bool,
        unseen_weight: float,
        no_object_weight: float,
        missing: str = "",
    ) -> None:
        super().__init__()
        self.missing, count = missing, len(embeddings)
        unseen_index = torch.tensor(list(unseen), dtype=torch.int64)
        seen_index = torch.tensor([i for i in range(count) if i not in set(unseen)], dtype=torch.int64)
        seen_row = torch.full((count,), count)
        seen_row[seen_index] = torch.arange(len(seen_index))
        loss_weight = torch.ones(count + 1)
        loss_weight[unseen_index], loss_weight[-1] = unseen_weight, no_object_weight
        tables = {
            "unseen": unseen_index,
            "seen": seen_index,
            "seen_row": seen_row,
            "embeddings": embeddings[seen_index] if among_seen else embeddings,
            "row": seen_row if among_seen else torch.arange(count),
            "unseen_embeddings": embeddings[unseen_index],
            "loss_weight": loss_weight,
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "ClassTables":
        """The tables of a config. Never fails: inference needs no embeddings, so their lack is noted in ``missing``."""
        node, space, missing = cfg.MODEL.MASK_FORMER, ClassSpace.of_config(cfg), ""
        try:
            space = output_classes(cfg)
            embeddings = ClassEmbeddings.of_config(cfg, space).of(space.vocabulary)
        except UserError as error:
            missing, embeddings = str(error), torch.zeros(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, likely_width(cfg))
        unseen = space.unseen_outputs
        # As published: told apart among seen classes for word vectors, among all for CLIP.
        return cls(embeddings, unseen, node.VEC_PATH is not None, node.CLASS_ECO, node.NO_OBJECT_WEIGHT, missing)

    def check_trainable(self) -> None:
        """UserError if there are no class embeddings, or no unseen classes to learn."""
        if self.missing:
            raise UserError(f"PADing cannot be trained without class embeddings. {self.missing}")
        if not len(self.unseen):
            raise UserError(
                "PADing cannot be trained: the data sets of DATASETS.TRAIN have no unseen class. Name one whose split "
                "file has some."
            )


def likely_width(cfg: CfgNode) -> int:
    """The width of a config's class embeddings: that of its file if it can be read, else the published one."""
    try:
        return embedding_width(resolve_embedding_path(cfg))
    except UserError:
        return CLIP_WIDTH if cfg.MODEL.MASK_FORMER.VEC_PATH is None else WORD_VECTOR_WIDTH


def check_class_count(cfg: CfgNode) -> None:
    """UserError if ``NUM_CLASSES`` is not the number of all classes of the split, which this model tells apart."""
    space, count = ClassSpace.of_config(cfg), cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    every, unseen = len(space.vocabulary), len(space.unseen_outputs)
    if count != every and (space.subset or max(space.unseen_outputs, default=-1) >= count):
        raise UserError(
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {count}, but {cfg.MODEL.META_ARCHITECTURE} tells all {every} classes "
            f"of the split of {space.data_set} apart, {every - unseen} seen and {unseen} unseen. Set "
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES {every}, or -1 to have them counted."
        )
