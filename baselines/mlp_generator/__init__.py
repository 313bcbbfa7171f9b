"""A generator without primitives, as in generative moment matching networks: an MLP on class embedding and noise.

``MODEL.MASK_FORMER.GENERATOR mlp``. With ``STRUCTURE_WEIGHT 0`` it is the GMMN baseline, else PADing without
primitives. ``TRANS_NUM_LAYER`` and ``TRANS_DROP_RATE`` are those of the hidden layers, ``NOISE`` that of the input.
"""

from itertools import pairwise

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from PADing.errors import UserError
from PADing.generation import StructuredGenerator
from PADing.generation.feature_generator import GENERATOR_REGISTRY
from PADing.generation.networks import LEAK


class MLP(nn.Module):
    """``[query ; z]`` with z standard normal, in training and in evaluation, through hidden layers: (n, d) -> (n, d).

    Args:
        width: d, of queries, of z and of the result.
        layers: number of hidden layers, at least 1; they are four times as wide.
        drop_rate: dropout behind each hidden layer.
        noise: False: no z, and no inputs for it.
    """

    def __init__(self, width: int, layers: int, drop_rate: float, noise: bool) -> None:
        super().__init__()
        self.noise = noise
        sizes = [2 * width if noise else width, *[4 * width] * layers]
        parts: list[nn.Module] = []
        for size, following in pairwise(sizes):
            parts += [nn.Linear(size, following), nn.LeakyReLU(LEAK), nn.Dropout(drop_rate)]
        self.layers = nn.Sequential(*parts, nn.Linear(sizes[-1], width))

    def forward(self, queries: Tensor) -> Tensor:
        """Features of projected class embeddings."""
        if self.noise:
            queries = torch.cat([queries, torch.randn(queries.shape, device=queries.device)], dim=1)
        return self.layers(queries)


@GENERATOR_REGISTRY.register("mlp")
class MLPGenerator(StructuredGenerator):
    """PADing's generator with an MLP in place of the primitives.

    Args:
        embedding_width: e, of class embeddings. width: d, of features.
        layers, drop_rate, noise: see :class:`MLP`.
        structure: see :meth:`StructuredGenerator.add_structure`.
    """

    def __init__(
        self, embedding_width: int, width: int, *, layers: int, drop_rate: float, noise: bool, structure: dict
    ) -> None:
        super().__init__(embedding_width, width)
        self.generator = MLP(width, layers, drop_rate, noise)
        self.add_structure(width, **structure)

    @classmethod
    def from_config(cls, cfg: CfgNode, embedding_width: int) -> "MLPGenerator":
        """Sizes and switches from ``MODEL.MASK_FORMER``; UserError without a hidden layer."""
        node = cfg.MODEL.MASK_FORMER
        if node.TRANS_NUM_LAYER < 1:
            raise UserError(
                f"MODEL.MASK_FORMER.TRANS_NUM_LAYER is {node.TRANS_NUM_LAYER}, but the generator 'mlp' needs at least "
                "one hidden layer."
            )
        return cls(
            embedding_width,
            node.HIDDEN_DIM,
            layers=node.TRANS_NUM_LAYER,
            drop_rate=node.TRANS_DROP_RATE,
            noise=node.NOISE,
            structure=cls.structure_of(cfg),
        )

    def generate(self, queries: Tensor) -> Tensor:
        """The MLP's outputs, each from noise of its own."""
        return self.generator(queries)
