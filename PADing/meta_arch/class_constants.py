"""Tables of PADing that follow from which classes are unseen: positions, vectors, weights in the loss."""

from collections.abc import Sequence

import torch
from torch import Tensor


def class_constants(
    vectors: Tensor | None,
    num_classes: int,
    unseen_index: Sequence[int],
    relation_over_seen: bool,
    unseen_weight: float,
    no_object_weight: float,
) -> dict[str, Tensor | None]:
    """Positions of classes among the outputs, their vectors, and their weights in the classifier's loss.

    Args:
        vectors: (C, e) float32, or None.
        unseen_index: positions of the U unseen classes.
        relation_over_seen: the relation net tells seen embeddings apart among seen classes only, else among all.
        unseen_weight, no_object_weight: in the classifier's loss; seen classes have 1.

    Returns:
        ``unseen_index`` (U,), ``seen_index`` (C - U,) int64; ``seen_row`` (C,) int64, the row of each class among the
        seen ones; ``class_vectors`` (k, e), of the classes among which the relation net tells apart, and ``class_row``
        (C,) int64, the row of each class there; ``unseen_vectors`` (U, e); ``class_weight``
        (C + 1,) float32, the last for "no object". An unseen class has a row beyond the end
        where there is none for it, so that using it is an error.
    """
    unseen = torch.tensor(list(unseen_index), dtype=torch.int64)
    seen = torch.tensor([i for i in range(num_classes) if i not in set(unseen_index)], dtype=torch.int64)
    seen_row = torch.full((num_classes,), num_classes)
    seen_row[seen] = torch.arange(len(seen))
    class_weight = torch.ones(num_classes + 1)
    class_weight[unseen], class_weight[-1] = unseen_weight, no_object_weight
    return {
        "unseen_index": unseen,
        "seen_index": seen,
        "seen_row": seen_row,
        "class_row": seen_row if relation_over_seen else torch.arange(num_classes),
        "class_weight": class_weight,
        "class_vectors": None if vectors is None else vectors[seen] if relation_over_seen else vectors,
        "unseen_vectors": None if vectors is None else vectors[unseen],
    }
