"""Joins a model's class scores with CLIP's own classification of its masks."""

from torch import Tensor

from frozenclip.class_table import ClassTable
from frozenclip.encoder import ImageEncoder
from frozenclip.ensemble import geometric_ensemble
from frozenclip.pooling import region_weights


def ensembled(
    class_logits: Tensor,
    mask_logits: Tensor,
    last: Tensor,
    encoder: ImageEncoder,
    classes: ClassTable,
    exponents: tuple[float, float],
    padded: tuple[int, int],
    image_sizes: list[tuple[int, int]] | None,
) -> Tensor:
    """Log probabilities (B, Q, K + 1) of the ensemble with CLIP's own classification of each mask (FC-CLIP, Sec. 3.3).

    Args:
        class_logits: (B, Q, K + 1) of the first classifier, "no object" last.
        mask_logits: (B, Q, h, w).
        last: the encoder's last map of the images.
        encoder: CLIP's.
        classes: the K classes.
        exponents: alpha of classes that the training has seen, and beta of the others.
        padded, image_sizes: see :func:`region_weights`.
    """
    size = last.shape[-2], last.shape[-1]
    weights = region_weights(mask_logits, size, padded, image_sizes)
    regions = encoder.embed(last, weights)
    others = encoder.scale * classes.cosines(regions)
    return geometric_ensemble(class_logits, others, classes.share(*exponents), weights.sum((-2, -1)) == 0)
