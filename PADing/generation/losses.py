"""Distances between sets of features and between their similarity structures."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

BANDWIDTHS = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0)
TEMPERATURE = 0.1
# Below this the squared discrepancy is rounding noise, which may be negative and whose square root has no gradient.
SMALLEST_SQUARE = 1e-12


def mmd(generated: Tensor, real: Tensor, bandwidths: Sequence[float] = BANDWIDTHS) -> Tensor:
    """Maximum mean discrepancy between two sets (the generator loss L_G, PADing Sec. 3.2).

    ``sqrt( sum_v sum_ij s_i s_j exp(-|x_i - x_j|^2 / (2 v)) )`` over both sets together, where ``s`` is ``1/m`` for
    generated and ``-1/n`` for real rows and ``v`` runs over the bandwidths. The Gram matrix is always float32, also
    inside autocast: the result is a small difference of large numbers.

    Args:
        generated: (m, d) float features, m > 0.
        real: (n, d) float query features, n > 0.

    Returns:
        float32 scalar >= 0, symmetric in its arguments.
    """
    with torch.autocast(generated.device.type, enabled=False):
        rows = torch.cat([generated, real]).float()
        half_square = 0.5 * (rows * rows).sum(dim=1)
        exponent = rows @ rows.t() - half_square.unsqueeze(0) - half_square.unsqueeze(1)
        kernel = sum(torch.exp(exponent / v) for v in bandwidths)
        m, n = len(generated), len(real)
        sign = torch.cat([rows.new_full((m,), 1.0 / m), rows.new_full((n,), -1.0 / n)])
        return (sign @ kernel @ sign).clamp(min=SMALLEST_SQUARE).sqrt()


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of every row of ``a`` (n, d) with every row of ``b`` (k, d): (n, k)."""
    return F.normalize(a, dim=1) @ F.normalize(b, dim=1).t()


def similarity_kl(prediction: Tensor, target: Tensor) -> Tensor:
    """KL divergence of row distributions, as the alignment and the unrelated terms use it (PADing Sec. 3.3).

    Rows of both (n, k) matrices become distributions by a softmax at temperature 0.1. The sum of
    ``t (log t - log p)`` is divided by ``n k``, the number of elements. Gradients flow into both arguments.
    """
    log_prediction = F.log_softmax(prediction / TEMPERATURE, dim=1)
    log_target = F.log_softmax(target / TEMPERATURE, dim=1)
    return F.kl_div(log_prediction, log_target, reduction="sum", log_target=True) / prediction.numel()
