"""The small networks that turn class vectors into class embeddings and take those apart."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAK = 0.2


def generate(generator: nn.Module, primitives: Tensor | None, queries: Tensor) -> Tensor:
    """Assemble one class embedding for each query from the primitives (the primitive generator, PADing Sec. 3.2).

    Each query is a sequence of its own, so the result for one class does not depend on which others are asked for.

    Args:
        generator: transformer decoder, called with (queries (1, n, d), memory (p, n, d)); its result ends in (n, d).
            Without primitives: any module (n, d) -> (n, d).
        primitives: (p, d) float, the learned primitives: keys and values of the cross-attention. None: a generator
            that has none.
        queries: (n, d) float, projected class vectors.

    Returns:
        (n, d) float class embeddings.
    """
    if primitives is None:
        return generator(queries)
    n, width = queries.shape
    memory = primitives.unsqueeze(1).expand(-1, n, -1)
    return generator(queries.unsqueeze(0), memory).reshape(n, width)


class MLPGenerator(nn.Module):
    """A generator without primitives, as in generative moment matching networks: (n, d) -> (n, d).

    ``[query ; z]`` with z standard normal, drawn in training and in evaluation, through hidden layers.

    Args:
        width: d, of the queries, of z and of the result.
        hidden: width of the hidden layers. layers: their number, at least 1.
        drop_rate: dropout behind each hidden layer.
        noise: False: no z, and no inputs for it.
    """

    def __init__(self, width: int, hidden: int, layers: int, drop_rate: float, noise: bool):
        super().__init__()
        self.noise = noise
        sizes = [2 * width if noise else width, *[hidden] * layers]
        parts: list[nn.Module] = []
        for size, following in pairwise(sizes):
            parts += [nn.Linear(size, following), nn.LeakyReLU(LEAK), nn.Dropout(drop_rate)]
        self.layers = nn.Sequential(*parts, nn.Linear(hidden, width))

    def forward(self, queries: Tensor) -> Tensor:
        if self.noise:
            queries = torch.cat([queries, torch.randn(queries.shape, device=queries.device)], dim=1)
        return self.layers(queries)


class Encoder(nn.Module):
    """Map class embeddings to their semantic-related or semantic-unrelated part: (n, d) -> (n, d)."""

    def __init__(self, drop_rate: float, width: int):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(width, width), nn.Linear(width, width), nn.LeakyReLU(LEAK), nn.Dropout(drop_rate)
        )

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.encoder(embeddings)


class Decoder(nn.Module):
    """Reconstruct class embeddings from both parts, the related one first: (n, d), (n, d) -> (n, d)."""

    def __init__(self, drop_rate: float, width: int):
        super().__init__()
        # The last activation and dropout belong to the published network: the output is not a free linear map.
        self.decoder = nn.Sequential(
            nn.Linear(2 * width, width),
            nn.LeakyReLU(LEAK),
            nn.Dropout(drop_rate),
            nn.Linear(width, width),
            nn.LeakyReLU(LEAK),
            nn.Dropout(drop_rate),
        )

    def forward(self, related: Tensor, unrelated: Tensor) -> Tensor:
        return self.decoder(torch.cat([related, unrelated], dim=1))


class RelationNet(nn.Module):
    """Score how well each embedding fits each class: (n, d), (k, d) -> (n, k) in (0, 1).

    ``sigmoid(fc2(relu(fc1([s_i ; c_j]))))`` for all pairs. ``fc1`` is applied to both halves of a pair before they are
    added, which is the same sum without the (n, k, 2d) tensor of all pairs.
    """

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(2 * width, hidden)
        self.fc2 = nn.Linear(hidden, 1)

    def forward(self, embeddings: Tensor, classes: Tensor) -> Tensor:
        of_embedding, of_class = self.fc1.weight.split(embeddings.shape[1], dim=1)
        left = F.linear(embeddings, of_embedding, self.fc1.bias)
        right = F.linear(classes, of_class)
        return self.fc2(F.relu(left.unsqueeze(1) + right.unsqueeze(0))).squeeze(2).sigmoid()
