"""Distances between sets of features and between their similarity structures."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

BANDWIDTHS = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0)
TEMPERATURE = 0.1
# A smaller squared discrepancy is rounding noise: it may be negative, and its square root has no gradient.
SMALLEST_SQUARE = 1e-12


def mmd(generated: Tensor, real: Tensor, bandwidths: Sequence[float] = BANDWIDTHS) -> Tensor:
    """Maximum mean discrepancy between two sets (the generator loss L_G, PADing Sec. 3.2).

    ``sqrt( sum_v sum_ij s_i s_j exp(-|x_i - x_j|^2 / (2 v)) )`` over the rows of both sets, with ``s = 1/m`` for
    generated rows, ``s = -1/n`` for real ones, and all bandwidths ``v``. The Gram matrix is float32 even inside
    autocast, because the result is a small difference of large numbers.

    Args:
        generated: (m, d) float generated features, m > 0.
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
    """KL divergence of row distributions, for the alignment and unrelated terms (PADing Sec. 3.3): a float scalar.

    A softmax at temperature 0.1 turns the rows of both (n, k) matrices into distributions ``p`` and ``t``. The result
    is the sum of ``t (log t - log p)``, divided by ``n k``. Gradients flow into both arguments.
    """
    log_prediction = F.log_softmax(prediction / TEMPERATURE, dim=1)
    log_target = F.log_softmax(target / TEMPERATURE, dim=1)
    return F.kl_div(log_prediction, log_target, reduction="sum", log_target=True) / prediction.numel()
