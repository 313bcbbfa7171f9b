"""The interface of feature generators, and their registry."""

from collections.abc import Callable
from typing import NamedTuple

from detectron2.config import CfgNode
from torch import Tensor, nn

from PADing.errors import UserError
from PADing.generation.class_tables import ClassTables
from PADing.registry import NamedRegistry

# MODEL.MASK_FORMER.GENERATOR -> class of the generator.
GENERATOR_REGISTRY: NamedRegistry[type["FeatureGenerator"]] = NamedRegistry("a generator")


class GeneratorStep(NamedTuple):
    """The inputs of a generator's loss in one step."""

    query_features: Tensor  # (M, d), of the matched queries, without gradient; M is 0 without ground truth
    labels: Tensor  # (M,) int64, the seen classes of these queries
    classes: ClassTables
    classification: Callable[[Tensor, Tensor], Tensor]  # the classifier's weighted loss on features (n, d), labels (n,)


class FeatureGenerator(nn.Module):
    """Generates features from class embeddings; the classifier learns unseen classes from them.

    Register a subclass with ``@GENERATOR_REGISTRY.register("mine")``. :class:`PADing` adopts its child modules as its
    own, so checkpoints have them under their own names.

    Args:
        node: the config's ``MODEL.MASK_FORMER``; its ``HIDDEN_DIM`` is d, the width of features.
        embedding_width: e, of class embeddings.
    """

    def __init__(self, node: CfgNode, embedding_width: int) -> None:
        super().__init__()
        self.fc_projection = nn.Linear(embedding_width, node.HIDDEN_DIM)

    def trained_networks(self) -> list[nn.Module]:
        """The trained networks, in the order of the optimizer's parameters."""
        return list(self.children())

    def generate(self, queries: Tensor) -> Tensor:
        """Generated features (n, d) from class embeddings that ``fc_projection`` has projected (n, d)."""
        raise NotImplementedError

    def terms(self, step: GeneratorStep) -> dict[str, Tensor]:
        """The terms of the generator's loss by name, and ``generate_loss``, the minimised sum: float scalars."""
        raise NotImplementedError


def generator_type(cfg: CfgNode) -> type[FeatureGenerator]:
    """The generator that ``MODEL.MASK_FORMER.GENERATOR`` names; UserError if there is none."""
    name = cfg.MODEL.MASK_FORMER.GENERATOR
    if name not in GENERATOR_REGISTRY:
        raise UserError(f"MODEL.MASK_FORMER.GENERATOR is {name!r}, but must be one of {', '.join(GENERATOR_REGISTRY)}.")
    return GENERATOR_REGISTRY[name]
