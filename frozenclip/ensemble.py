"""The geometric ensemble of two classifiers, in log space."""

import torch
from torch import Tensor


def geometric_ensemble(logits: Tensor, others: Tensor, share: Tensor, empty: Tensor | None = None) -> Tensor:
    """Log probabilities of the ensemble, "no object" last: (..., K + 1) float32 (FC-CLIP, Sec. 3.3, Eq. 4).

    With v the first classifier's probability of "no object", p its probabilities of the K classes without that column,
    and q those of the second classifier, the class k gets

        (1 - v) * p_k^(1 - share_k) * q_k^share_k / sum over j of p_j^(1 - share_j) * q_j^share_j,

    and "no object" keeps v. A class that the first classifier excludes (logit -inf) stays excluded.

    Args:
        logits: (..., K + 1) of the first classifier, "no object" last.
        others: (..., K) of the second classifier.
        share: (K,) of the second classifier in each class, 0 to 1.
        empty: (...) bool, where the second classifier has nothing to say and the first one is kept; None: nowhere.
    """
    with torch.autocast(device_type=logits.device.type, enabled=False):
        logits, others, share = logits.float(), others.float(), share.float()
        own, nothing = logits[..., :-1], logits[..., -1:]
        total = logits.logsumexp(-1, keepdim=True)
        object_log = own.logsumexp(-1, keepdim=True) - total
        excluded = own.isneginf()
        first = own.log_softmax(-1).masked_fill(excluded, 0)
        second = others.masked_fill(excluded, float("-inf")).log_softmax(-1).masked_fill(excluded, 0)
        mixed = (1 - share) * first + share * second
        if empty is not None:
            mixed = torch.where(empty.unsqueeze(-1), first, mixed)
        mixed = mixed.masked_fill(excluded, float("-inf")).log_softmax(-1)
        return torch.cat([mixed + object_log, nothing - total], dim=-1)
