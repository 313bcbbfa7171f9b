"""A first model as a source of labels for a second round of training (self-training)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from PADing.errors import UserError
from PADing.generation import pseudo_labels


class Teacher(NamedTuple):
    """The classifier of a first model, and when its answers count; see ``PADing.generation.pseudo_labels``."""

    weight: Tensor  # (C + 1, d)
    bias: Tensor  # (C + 1,)
    score: float
    max_overlap: float

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], student: nn.Linear, score: float, max_overlap: float) -> "Teacher":
        """Take the classifier ``new_fc`` out of the state dict of a first model.

        Args:
            student: the classifier that is to learn, on its device.

        Raises:
            UserError: a model without PADing's classifier, or of other classes.
        """
        weight, bias = (weights.get(f"new_fc.{part}") for part in ("weight", "bias"))
        if weight is None or bias is None or weight.shape != student.weight.shape:
            found = "none" if weight is None else tuple(weight.shape)
            raise UserError(
                "MODEL.MASK_FORMER.SELF_TRAINING.WEIGHTS must be a trained PADing of the same classes: its classifier "
                f"new_fc.weight is {found}, but {tuple(student.weight.shape)} is needed."
            )
        return cls(weight.to(student.weight.device), bias.to(student.bias.device), score, max_overlap)

    def relabel(self, classes: Tensor, outputs: dict[str, Tensor], targets: Sequence[dict], unseen: Tensor) -> Tensor:
        """``classes`` (B, Q) of queries, with this model's answers where a query matches nothing.

        Args:
            outputs: the segmenter's, ``pred_embed`` (B, Q, d) and ``pred_masks`` (B, Q, h, w).
            targets: for each image ``masks`` (n, H, W), all that is annotated.
            unseen: positions of the unseen classes.
        """
        logits = nn.functional.linear(outputs["pred_embed"], self.weight, self.bias)
        annotated = torch.stack([target["masks"].bool().any(0) for target in targets])
        return pseudo_labels(classes, logits, outputs["pred_masks"], annotated, unseen, self.score, self.max_overlap)
