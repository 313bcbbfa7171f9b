"""How a model turns class logits into instances, as data: inference follows it, and an exported model carries it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from PADing.meta_arch.results import best_pairs


@dataclass(frozen=True)
class InstanceRule:
    """The choice of (query, class) pairs of an image.

    Attributes:
        groups: of each group the number of pairs, and the labels that compete for them; None: all labels.
        columns: the class logits that compete in the softmax, beside "no object"; None: all. A label is the position
            of a class among them.
        scale: factor of the class logits.
        kept: labels that may be instances; None: all.
    """

    groups: tuple[tuple[int, tuple[int, ...] | None], ...]
    columns: tuple[int, ...] | None = None
    scale: float = 1.0
    kept: tuple[int, ...] | None = None

    def pairs(self, mask_cls: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The chosen pairs, unsorted, with those whose label is not ``kept``: probabilities, queries, labels.

        (Q, K + 1) logits, "no object" last, give three tensors (n,); a batch (B, Q, K + 1) gives (B, n).
        """
        logits = mask_cls if self.scale == 1.0 else self.scale * mask_cls
        if self.columns is not None:
            logits = logits[..., [*self.columns, -1]]
        prob = logits.softmax(-1)[..., :-1]
        found = []
        for number, labels in self.groups:
            if labels is None:
                found.append(best_pairs(prob, number))
                continue
            table = torch.tensor(labels, dtype=torch.int64, device=prob.device)
            scores, queries, classes = best_pairs(prob[..., table], number)
            found.append((scores, queries, table[classes]))
        if len(found) == 1:
            return found[0]
        scores, queries, classes = (torch.cat(parts, dim=-1) for parts in zip(*found, strict=True))
        return scores, queries, classes

    def is_kept(self, labels: Tensor) -> Tensor:
        """Whether labels (...) are ``kept``: (...) bool."""
        if self.kept is None:
            return torch.ones_like(labels, dtype=torch.bool)
        return (labels.unsqueeze(-1) == torch.tensor(self.kept, device=labels.device)).any(-1)
