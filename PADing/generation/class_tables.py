"""Class tables of stage 2: positions of seen and unseen classes, class embeddings, weights in the loss."""

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
    """Tensors for C classes, U of them unseen, as buffers that are not saved in checkpoints.

    Attributes:
        unseen: (U,) int64, positions of the unseen classes.
        seen: (C - U,) int64, positions of the seen classes.
        seen_row: (C,) int64, index of a class in ``seen``.
        embeddings: (k, e), class embeddings of the candidates in the relation loss of seen classes.
        row: (C,) int64, index of a class in ``embeddings``.
        unseen_embeddings: (U, e).
        loss_weight: (C + 1,) float32, weights in the classifier's loss, "no object" last.
        favour: the weight of unseen classes in it, relative to seen ones (``CLASS_ECO``).
        missing: why there are no class embeddings, so that only inference is possible; else "".

    The index of an unseen class that is not in a table is out of range, so that using it is an error.
    """

    unseen: Tensor
    seen: Tensor
    seen_row: Tensor
    embeddings: Tensor
    row: Tensor
    unseen_embeddings: Tensor
    loss_weight: Tensor

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        node, space, self.missing = cfg.MODEL.MASK_FORMER, ClassSpace.of_config(cfg), ""
        self.favour = float(node.CLASS_ECO)
        try:
            space = output_classes(cfg)
            embeddings = ClassEmbeddings.of_config(cfg, space).of(space.vocabulary)
        except UserError as error:  # inference works without class embeddings
            self.missing, embeddings = str(error), torch.zeros(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, likely_width(cfg))
        count, unseen = len(embeddings), torch.tensor(space.unseen_outputs, dtype=torch.int64)
        seen = torch.tensor([i for i in range(count) if i not in space.unseen_outputs], dtype=torch.int64)
        seen_row = torch.full((count,), count)
        seen_row[seen] = torch.arange(len(seen))
        loss_weight = torch.ones(count + 1)
        loss_weight[unseen], loss_weight[-1] = node.CLASS_ECO, node.NO_OBJECT_WEIGHT
        # As published: the candidates are the seen classes for word vectors, all classes for CLIP.
        among_seen = node.VEC_PATH is not None
        tables = {
            "unseen": unseen,
            "seen": seen,
            "seen_row": seen_row,
            "embeddings": embeddings[seen] if among_seen else embeddings,
            "row": seen_row if among_seen else torch.arange(count),
            "unseen_embeddings": embeddings[unseen],
            "loss_weight": loss_weight,
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def all_embeddings(self) -> Tensor:
        """Class embeddings (C, e) of all classes, seen and unseen."""
        result = self.unseen_embeddings.new_zeros(len(self.row), self.embeddings.shape[1])
        result[self.seen] = self.embeddings[self.row[self.seen]]
        result[self.unseen] = self.unseen_embeddings
        return result

    def check_trainable(self) -> None:
        """UserError if there are no class embeddings or no unseen classes."""
        if self.missing:
            raise UserError(f"PADing cannot be trained without class embeddings. {self.missing}")
        if not len(self.unseen):
            raise UserError(
                "PADing cannot be trained: the data sets of DATASETS.TRAIN have no unseen class. Name one whose split "
                "file has some."
            )


def likely_width(cfg: CfgNode) -> int:
    """The width of a config's class embeddings: that of its file if readable, else the published width."""
    try:
        return embedding_width(resolve_embedding_path(cfg))
    except UserError:
        return CLIP_WIDTH if cfg.MODEL.MASK_FORMER.VEC_PATH is None else WORD_VECTOR_WIDTH


def check_class_count(cfg: CfgNode) -> None:
    """UserError if ``NUM_CLASSES`` is not the number of all classes of the split, seen and unseen."""
    space, count = ClassSpace.of_config(cfg), cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    every, unseen = len(space.vocabulary), len(space.unseen_outputs)
    if count != every and (space.subset or max(space.unseen_outputs, default=-1) >= count):
        raise UserError(
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {count}, but {cfg.MODEL.META_ARCHITECTURE} predicts all {every} "
            f"classes of the split of {space.data_set}, {every - unseen} seen and {unseen} unseen. Set "
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES {every}, or -1 to have them counted."
        )
