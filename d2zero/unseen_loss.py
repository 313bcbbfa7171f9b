"""The unseen-constrained loss: proposals of seen classes also learn from similar unseen classes."""

import torch
from detectron2.config import CfgNode
from torch import Tensor
from torch.nn import functional as F

from PADing.modeling import SetCriterion


class UnseenConstrainedCriterion(SetCriterion):
    """Mask2Former's losses, and ``loss_unseen`` (D2Zero, unseen-constrained feature learning).

    The similarity of seen class i (of S) to unseen class j (of U) is ``e_ij = softmax_j(cos(a_i, a_j) / tau)``, where
    ``a`` are class embeddings. Each foreground proposal (matched query) of class i gets a pseudo unseen label, drawn
    from row i. The loss is the cross-entropy of its scores of unseen classes with that label, averaged over the
    proposals; 0 if there are none. Such a loss does not see how high scores of unseen classes are beside those of seen
    ones. With ``among_all`` the softmax of the cross-entropy is over both, which is not the paper's.

    Args:
        args, kwargs: see :class:`SetCriterion`; ``num_classes`` is S.
        seen: (S, e) class embeddings.
        unseen: (U, e) class embeddings.
        temperature: tau.
        gumbel: draw the labels by the Gumbel-max rule; False: always take the most similar class.
        among_all: the scores of seen classes compete, too.

    Raises:
        ValueError: ``seen`` has another number of classes than the criterion.
    """

    log_resemblance: Tensor

    def __init__(
        self, *args, seen: Tensor, unseen: Tensor, temperature: float, gumbel: bool, among_all: bool = False, **kwargs
    ) -> None:
        super().__init__(*args, **kwargs)
        if len(seen) != self.num_classes:
            raise ValueError(f"{len(seen)} embeddings of seen classes, but {self.num_classes} classes are trained")
        self.gumbel, self.among_all = gumbel, among_all
        similarity = F.normalize(seen, dim=1) @ F.normalize(unseen, dim=1).T
        self.register_buffer("log_resemblance", (similarity / temperature).log_softmax(dim=1), persistent=False)

    @classmethod
    def loss_weights(cls, cfg: CfgNode) -> dict[str, float]:
        """Weights by loss; ``UNSEEN_LOSS_WEIGHT`` is relative to the weight of the classification loss."""
        weights = super().loss_weights(cfg)
        return {**weights, "loss_unseen": cfg.MODEL.D2ZERO.UNSEEN_LOSS_WEIGHT * weights["loss_ce"]}

    def forward(self, outputs: dict, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """As :class:`SetCriterion`, but ``pred_logits`` (B, Q, S + U + 1) also have scores of the unseen classes.

        Matching and ``loss_ce`` use only the scores of seen classes and background.
        """
        predictions = [self._split(p) for p in (outputs, *outputs.get("aux_outputs", ()))]
        return super().forward({**predictions[0], "aux_outputs": predictions[1:]}, targets)

    def _split(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        seen, unseen, background = prediction["pred_logits"].split(
            [self.num_classes, self.log_resemblance.shape[1], 1], dim=-1
        )
        compete = torch.cat([unseen, seen], dim=-1) if self.among_all else unseen
        return {**prediction, "pred_logits": torch.cat([seen, background], dim=-1), "unseen_logits": compete}

    def label_losses(self, predictions: list[dict], classes: Tensor) -> dict[str, Tensor]:
        """The base's losses, and ``loss_unseen`` (A,)."""
        logits = torch.stack([p["unseen_logits"] for p in predictions]).float()  # (A, B, Q, U or U + S)
        foreground = classes < self.num_classes
        labels = self.pseudo_labels(classes[foreground], self._noise(*classes.shape) if self.gumbel else None)
        loss = logits.new_zeros(foreground.shape)
        loss[foreground] = F.cross_entropy(logits[foreground], labels, reduction="none")
        proposals: Tensor | float = foreground.flatten(1).sum(1).clamp(min=1)
        if self.whole is not None:
            proposals = max(self.whole.count_pairs(classes.shape[2]), 1) / self.whole.parts
        unseen = loss.flatten(1).sum(1) / proposals
        return {**super().label_losses(predictions, classes), "loss_unseen": unseen}

    def _noise(self, predictions: int, images: int, queries: int) -> Tensor | None:
        """Random numbers for the current micro-batch's proposals, drawn with those of the whole batch; else None."""
        if self.whole is None:
            return None
        whole, table = self.whole, self.log_resemblance
        shape = (predictions, whole.count_pairs(queries), table.shape[1])
        noise = whole.once("gumbel", lambda: torch.rand(shape, device=table.device))
        return noise[:, whole.pairs(images, queries)].flatten(0, 1)

    @torch.no_grad()
    def pseudo_labels(self, seen_classes: Tensor, uniform: Tensor | None = None) -> Tensor:
        """An unseen class for each seen one: (N) int64 -> (N) int64; ``uniform`` (N, U): random numbers to use."""
        scores = self.log_resemblance[seen_classes]
        if self.gumbel:
            # The argmax of scores plus Gumbel noise is a draw from the softmax, as in the one-hot Gumbel-softmax.
            uniform = torch.rand(scores.shape, device=scores.device) if uniform is None else uniform
            scores = scores - torch.log(-torch.log(uniform.clamp(min=torch.finfo(uniform.dtype).tiny)))
        return scores.argmax(dim=1)
