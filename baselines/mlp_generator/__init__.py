"""A generator without primitives, as in generative moment matching networks: an MLP on class embedding and noise.

Use it with ``MODEL.MASK_FORMER.GENERATOR mlp``. With ``STRUCTURE_WEIGHT 0`` it is the GMMN baseline, else PADing
without primitives. ``TRANS_NUM_LAYER`` is the number of hidden layers, ``TRANS_DROP_RATE`` their dropout; ``NOISE``
adds noise to the input.
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
    """An MLP on ``[query ; z]``: (n, d) -> (n, d); z is standard normal, in training and in evaluation.

    Args:
        width: d, of queries, of z and of the result.
        layers: number of hidden layers of width 4 d, at least 1.
        drop_rate: dropout after each hidden layer.
        noise: False: no z, so the input is the query alone.
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
    """PADing's generator with an MLP in place of the primitives."""

    def make_generator(self, node: CfgNode) -> None:
        """The MLP; UserError without a hidden layer."""
        if node.TRANS_NUM_LAYER < 1:
            raise UserError(
                f"MODEL.MASK_FORMER.TRANS_NUM_LAYER is {node.TRANS_NUM_LAYER}, but the generator 'mlp' needs at least "
                "one hidden layer."
            )
        self.generator = MLP(node.HIDDEN_DIM, node.TRANS_NUM_LAYER, node.TRANS_DROP_RATE, node.NOISE)

    def generate(self, queries: Tensor) -> Tensor:
        """Generated features (n, d), each with its own noise."""
        return self.generator(queries)
