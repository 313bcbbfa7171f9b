"""Tables of the second stage that follow from which classes are unseen: positions, embeddings, weights in the loss."""

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

    Attributes:
        unseen, seen: (U,), (C - U,) int64 positions. seen_row: (C,) int64, the place of a class in ``seen``.
        embeddings: (k, e), of the classes among which seen ones are told apart. row: (C,) int64, their rows there.
        unseen_embeddings: (U, e).
        loss_weight: (C + 1,) float32, in the classifier's loss, "no object" last.
        missing: why the embeddings are not those of the classes, so that only inference is possible; else "".

    An unseen class without a row has one beyond the end, so that using it is an error.
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
        try:
            space = output_classes(cfg)
            embeddings = ClassEmbeddings.of_config(cfg, space).of(space.vocabulary)
        except UserError as error:  # which inference need not know
            self.missing, embeddings = str(error), torch.zeros(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, likely_width(cfg))
        count, unseen = len(embeddings), torch.tensor(space.unseen_outputs, dtype=torch.int64)
        seen = torch.tensor([i for i in range(count) if i not in space.unseen_outputs], dtype=torch.int64)
        seen_row = torch.full((count,), count)
        seen_row[seen] = torch.arange(len(seen))
        loss_weight = torch.ones(count + 1)
        loss_weight[unseen], loss_weight[-1] = node.CLASS_ECO, node.NO_OBJECT_WEIGHT
        # As published: told apart among seen classes for word vectors, among all for CLIP.
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
