"""What generators of features have in common, and the table of those that there are."""

from collections.abc import Callable
from typing import NamedTuple

from detectron2.config import CfgNode
from torch import Tensor, nn

from PADing.errors import UserError
from PADing.generation.class_tables import ClassTables
from PADing.registry import NamedRegistry

# By the value of MODEL.MASK_FORMER.GENERATOR.
GENERATOR_REGISTRY: NamedRegistry[type["FeatureGenerator"]] = NamedRegistry("a generator")


class GeneratorStep(NamedTuple):
    """What a generator learns from in one step."""

    query_features: Tensor  # (M, d), of the matched queries, without gradient; M is 0 without ground truth
    labels: Tensor  # (M,) int64, their seen classes
    classes: ClassTables
    classification: Callable[[Tensor, Tensor], Tensor]  # the classifier's weighted loss on features (n, d), labels (n,)


class FeatureGenerator(nn.Module):
    """Makes features of class embeddings, of which the classifier learns unseen classes.

    A subclass is registered: ``@GENERATOR_REGISTRY.register("mine")``. It consists of child modules, which
    :class:`PADing` takes as its own children, so that checkpoints hold them under their own names.

    Args:
        node: the config's ``MODEL.MASK_FORMER``; its ``HIDDEN_DIM`` is d, the width of features.
        embedding_width: e, of class embeddings.
    """

    def __init__(self, node: CfgNode, embedding_width: int) -> None:
        super().__init__()
        self.fc_projection = nn.Linear(embedding_width, node.HIDDEN_DIM)

    def trained_networks(self) -> list[nn.Module]:
        """The networks in the order in which the optimizer holds their parameters."""
        return list(self.children())

    def generate(self, queries: Tensor) -> Tensor:
        """Features (n, d) of projected class embeddings (n, d), which ``fc_projection`` makes."""
        raise NotImplementedError

    def terms(self, step: GeneratorStep) -> dict[str, Tensor]:
        """The terms of the generator's loss by name, and ``generate_loss``, what is minimised: float scalars."""
        raise NotImplementedError


def generator_type(cfg: CfgNode) -> type[FeatureGenerator]:
    """The generator that ``MODEL.MASK_FORMER.GENERATOR`` names; UserError if there is none."""
    name = cfg.MODEL.MASK_FORMER.GENERATOR
    if name not in GENERATOR_REGISTRY:
        raise UserError(f"MODEL.MASK_FORMER.GENERATOR is {name!r}, but must be one of {', '.join(GENERATOR_REGISTRY)}.")
    return GENERATOR_REGISTRY[name]
