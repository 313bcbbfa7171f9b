"""Predictions of a trained model on the validation images, for methods that train the whole network."""

import numpy as np
import torch
from detectron2.config import CfgNode

from minibench.folds.features import validation_batches
from minibench.folds.truth import Truth
from PADing.errors import UserError
from PADing.inference import load_model
from PADing.meta_arch import SegmenterBase

__all__ = ["predictions"]


@torch.no_grad()
def predictions(cfg: CfgNode, truth: Truth) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], int]:
    """Run a model once.

    Args:
        cfg: names its weights and its validation set, with the images of ``truth``.
        truth: annotation.

    Returns:
        class logits (N, Q, K + 1), mask logits (N, Q, h, w), both float32; names of the K classes; the number of
        detections of an image.

    Raises:
        UserError: a model that chooses its instances in another way than by their probability.
    """
    model = load_model(cfg)
    if not isinstance(model, SegmenterBase):
        raise UserError(
            f"{type(model).__name__} is not built on the host's SegmenterBase, whose predictions are cached."
        )
    rule = model.instance_rule()
    if len(rule.groups) != 1 or rule.groups[0][1] is not None or rule.columns is not None:
        raise UserError(f"{type(model).__name__} lets some classes compete apart, for which version 2 has no curve.")
    logits, masks = [], []
    for batch in validation_batches(cfg, truth):
        classes, found = model.predict(model.preprocess(batch))
        logits.append(classes.numpy())
        masks.append(found.numpy())
    names = tuple(model.output_names())
    scale = np.float32(model.inverse_temperature)
    return np.concatenate(logits) * scale, np.concatenate(masks), names, rule.groups[0][0]
