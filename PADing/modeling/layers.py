"""The building blocks of the transformers: a residual sublayer each, and the small multi-layer perceptron."""

from torch import Tensor, nn
from torch.nn import functional as F

from PADing.modeling.attention import Attention


class _Sublayer(nn.Module):
    """A residual branch with one LayerNorm, behind the sum (post-norm) or before the branch (pre-norm)."""

    def __init__(self, width: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.pre_norm = pre_norm
        self.width = width

    def _residual(self, x: Tensor, branch) -> Tensor:
        if self.pre_norm:
            return x + self.drop(branch(self.norm(x)))
        return self.norm(x + self.drop(branch(x)))

    def _xavier(self) -> None:
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)


class SelfAttentionLayer(_Sublayer):
    """Queries look at each other; positions are added to queries and keys, not to values."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0, pre_norm: bool = False) -> None:
        super().__init__(width, dropout, pre_norm)
        self.self_attn = Attention(width, heads, dropout)
        self.norm = nn.LayerNorm(width)
        self._xavier()

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """x: (B, Q, C); positions: broadcastable to it. Returns (B, Q, C)."""

        def branch(x: Tensor) -> Tensor:
            placed = x + positions
            return self.self_attn(placed, placed, x)

        return self._residual(x, branch)


class CrossAttentionLayer(_Sublayer):
    """Queries look at the allowed places of a feature map."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0, pre_norm: bool = False) -> None:
        super().__init__(width, dropout, pre_norm)
        self.multihead_attn = Attention(width, heads, dropout)
        self.norm = nn.LayerNorm(width)
        self._xavier()

    def forward(self, x: Tensor, positions: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None) -> Tensor:
        """x: (B, Q, C); key (memory with its positions), value (memory): (B, S, C); allowed: (B, 1, Q, S) bool."""
        return self._residual(x, lambda x: self.multihead_attn(x + positions, key, value, allowed))


class FFNLayer(_Sublayer):
    """Two linear layers with a ReLU between them."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0, pre_norm: bool = False) -> None:
        super().__init__(width, dropout, pre_norm)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width)
        self._xavier()

    def forward(self, x: Tensor) -> Tensor:
        return self._residual(x, lambda x: self.linear2(self.drop(F.relu(self.linear1(x), inplace=True))))


class MLP(nn.Module):
    """Linear layers with ReLUs between them; keys ``layers.{i}``.

    Args:
        input_dim, hidden_dim, output_dim: widths; ``num_layers``: number of linear layers.
    """

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int) -> None:
        super().__init__()
        widths = [input_dim] + [hidden_dim] * (num_layers - 1) + [output_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """(..., input_dim) -> (..., output_dim)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x), inplace=True)
        return self.layers[-1](x)
