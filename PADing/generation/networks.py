"""The small networks that disentangle features, reconstruct them, and relate them to classes."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAK = 0.2


class Encoder(nn.Module):
    """Map features to their semantic-related or semantic-unrelated part: (n, d) -> (n, d)."""

    def __init__(self, drop_rate: float, width: int):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(width, width), nn.Linear(width, width), nn.LeakyReLU(LEAK), nn.Dropout(drop_rate)
        )

    def forward(self, features: Tensor) -> Tensor:
        """One part of the features."""
        return self.encoder(features)


class Decoder(nn.Module):
    """Reconstruct features from both parts: (n, d), (n, d) -> (n, d)."""

    def __init__(self, drop_rate: float, width: int):
        super().__init__()
        # As published, an activation and dropout follow the last linear layer.
        self.decoder = nn.Sequential(
            nn.Linear(2 * width, width),
            nn.LeakyReLU(LEAK),
            nn.Dropout(drop_rate),
            nn.Linear(width, width),
            nn.LeakyReLU(LEAK),
            nn.Dropout(drop_rate),
        )

    def forward(self, related: Tensor, unrelated: Tensor) -> Tensor:
        """The reconstructed features; the related part is the first half of the input."""
        return self.decoder(torch.cat([related, unrelated], dim=1))


class RelationNet(nn.Module):
    """Score how well each feature fits each class: (n, d), (k, d) -> (n, k) in (0, 1).

    ``sigmoid(fc2(relu(fc1([s_i ; c_j]))))`` for all pairs. ``fc1`` is applied to the halves of a pair separately, and
    the results are added; that avoids the (n, k, 2d) tensor of all pairs.
    """

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(2 * width, hidden)
        self.fc2 = nn.Linear(hidden, 1)

    def forward(self, features: Tensor, classes: Tensor) -> Tensor:
        """Scores of all pairs of a feature and a projected class embedding."""
        of_feature, of_class = self.fc1.weight.split(features.shape[1], dim=1)
        left = F.linear(features, of_feature, self.fc1.bias)
        right = F.linear(classes, of_class)
        return self.fc2(F.relu(left.unsqueeze(1) + right.unsqueeze(0))).squeeze(2).sigmoid()
