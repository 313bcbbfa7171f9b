"""Variants of PADing's second stage for the cause experiments: a plug-in with config keys of its own.

``MODEL.MASK_FORMER.VARIANT``:

- ``SYNTHESIS``: the term ``L_G`` of the generator "varied", which is else PADing's. "mmd": as published; "class_mmd":
  the mean of the same discrepancy over classes; "squared": squared error of each generated feature and its query's.
- ``OTHER_IMAGES``: also train on images that show unseen classes, whose segments are not annotated (transductive).
- ``PSEUDO_LABELS``: a first model of the same settings and seed, without both, labels unmatched queries.
- ``SEED_SHIFT``: is added to each seed, so that two rows of one method are two trainings.
- ``EXCHANGED_CLASSES``: so many unseen classes exchange their logits in the predictions, an effect that is known to be
  there: a method that names none of them rightly.

All but the first are read by ``minibench.folds.trials``, because images, first models, seeds and predictions are no
matter of the networks.
"""

from collections.abc import Callable, Iterator, Mapping

from detectron2.config import CfgNode
from torch import Tensor
from torch.nn import functional as F

from PADing.config_check import Joint
from PADing.generation import PrimitiveGenerator
from PADing.generation.feature_generator import GENERATOR_REGISTRY, GeneratorStep
from PADing.generation.losses import mmd

__all__ = ["CONFIG_RULES", "SYNTHESES", "VariedGenerator", "add_config", "class_mmd"]


def class_mmd(generated: Tensor, real: Tensor, labels: Tensor) -> Tensor:
    """MMD of generated (M, d) and real features (M, d) of each class, weighted by its share of the labels (M,)."""
    total = generated.new_zeros(())
    for label in labels.unique():
        own = labels == label
        total = total + own.sum() / len(labels) * mmd(generated[own], real[own])
    return total


SYNTHESES: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "mmd": lambda generated, real, labels: mmd(generated, real),
    "class_mmd": class_mmd,
    "squared": lambda generated, real, labels: F.mse_loss(generated, real),
}


@GENERATOR_REGISTRY.register("varied")
class VariedGenerator(PrimitiveGenerator):
    """PADing's generator with the term ``L_G`` that ``VARIANT.SYNTHESIS`` names."""

    def __init__(self, node: CfgNode, embedding_width: int) -> None:
        super().__init__(node, embedding_width)
        self.compared = SYNTHESES[node.VARIANT.SYNTHESIS]

    def synthesis(self, generated: Tensor, step: GeneratorStep) -> Tensor:
        """See ``SYNTHESES``."""
        return self.compared(generated, step.query_features, step.labels)


def add_config(cfg: CfgNode) -> None:
    """Add the keys with the published behaviour."""
    cfg.MODEL.MASK_FORMER.VARIANT = CfgNode(
        {
            "SYNTHESIS": "mmd",
            "OTHER_IMAGES": False,
            "PSEUDO_LABELS": False,
            "SEED_SHIFT": 0,
            "EXCHANGED_CLASSES": 0,
        }
    )


def _problems(cfg: CfgNode) -> Iterator[str]:
    name, generator = cfg.MODEL.MASK_FORMER.VARIANT.SYNTHESIS, cfg.MODEL.MASK_FORMER.GENERATOR
    if name not in SYNTHESES:
        yield f"MODEL.MASK_FORMER.VARIANT.SYNTHESIS is {name!r}, but must be one of {', '.join(SYNTHESES)}."
    elif name != "mmd" and generator != "varied":
        yield f"MODEL.MASK_FORMER.VARIANT.SYNTHESIS needs MODEL.MASK_FORMER.GENERATOR varied, not {generator}."
    if (shift := cfg.MODEL.MASK_FORMER.VARIANT.SEED_SHIFT) < 0:
        yield f"MODEL.MASK_FORMER.VARIANT.SEED_SHIFT must be at least 0, but is {shift}."
    if (number := cfg.MODEL.MASK_FORMER.VARIANT.EXCHANGED_CLASSES) < 0 or number == 1:
        yield f"MODEL.MASK_FORMER.VARIANT.EXCHANGED_CLASSES must be 0 or at least 2, but is {number}."


CONFIG_RULES = [Joint("model", _problems)]
