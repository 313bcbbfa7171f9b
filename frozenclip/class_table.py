"""The text embeddings of the classes that are predicted, and which of them the training has seen."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ClassTable(nn.Module):
    """K classes with one or more text embeddings each. It has no state-dict keys.

    Args:
        vectors: (T, e) text embeddings of any length.
        owner: (T,) int64, the class of each embedding, 0 to K - 1; None: one for each class.
        seen: K bool, whether training images show the class.
    """

    vectors: Tensor
    owner: Tensor
    seen: Tensor

    def __init__(self, vectors: Tensor, seen: Sequence[bool], owner: Tensor | None = None) -> None:
        super().__init__()
        self.single = owner is None or owner.tolist() == list(range(len(seen)))
        owner = torch.arange(len(seen)) if owner is None else owner
        self.register_buffer("vectors", F.normalize(vectors.float(), dim=1), persistent=False)
        self.register_buffer("owner", owner, persistent=False)
        self.register_buffer("seen", torch.tensor(list(seen), dtype=torch.bool), persistent=False)

    def __len__(self) -> int:
        return len(self.seen)

    def cosines(self, features: Tensor) -> Tensor:
        """Cosines with the classes: (..., e) of unit length -> (..., K); with synonyms, that of the nearest one."""
        found = features @ self.vectors.to(features).T
        if self.single:
            return found
        result = found.new_full((*found.shape[:-1], len(self)), float("-inf"))
        return result.scatter_reduce(-1, self.owner.expand_as(found), found, "amax")

    def share(self, alpha: float, beta: float) -> Tensor:
        """The second classifier's exponent for each class: (K,), ``alpha`` if it is seen, ``beta`` if not."""
        return torch.where(self.seen, alpha, beta)
