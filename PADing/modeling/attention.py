"""Multi-head attention on batch-first tensors, with the parameter names of ``torch.nn.MultiheadAttention``."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Scaled dot-product attention with input and output projections (Vaswani et al., Sec. 3.2.2).

    State-dict keys: ``in_proj_weight (3C, C)``, ``in_proj_bias``, ``out_proj.weight``, ``out_proj.bias``, so weights of
    ``torch.nn.MultiheadAttention`` fit.

    Args:
        width: channels C; a multiple of ``heads``.
        dropout: probability that an attention weight is dropped in training.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"Attention: width ({width}) must be a multiple of heads ({heads})")
        self.width, self.heads, self.dropout = width, heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Attend from every query to the allowed keys.

        Args:
            query: (B, L, C).
            key, value: (B, S, C), or (1, S, C) when all images share them: then they are projected only once.
            allowed: bool, broadcastable to (B, heads, L, S), True where a query may look. None: everywhere. A row
                without any True has no defined result.

        Returns:
            (B, L, C).
        """
        batch, length, width = query.shape
        if key.shape[0] == 1 and batch > 1 and allowed is None:
            # Queries do not see each other, so those of all images make one long sequence before the shared keys.
            return self(query.reshape(1, batch * length, width), key, value).view(batch, length, width)
        q, k, v = (self._split(x) for x in self._project(query, key, value))
        dropout = self.dropout if self.training else 0.0
        result = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout)
        return self.out_proj(result.transpose(1, 2).reshape(batch, length, width))

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Project what is the same tensor in one product."""
        weight, bias, c = self.in_proj_weight, self.in_proj_bias, self.width
        if query is key and key is value:
            return F.linear(query, weight, bias).chunk(3, dim=-1)
        if query is key:
            q, k = F.linear(query, weight[: 2 * c], bias[: 2 * c]).chunk(2, dim=-1)
            return q, k, F.linear(value, weight[2 * c :], bias[2 * c :])
        q = F.linear(query, weight[:c], bias[:c])
        if key is value:
            return q, *F.linear(key, weight[c:], bias[c:]).chunk(2, dim=-1)
        k = F.linear(key, weight[c : 2 * c], bias[c : 2 * c])
        return q, k, F.linear(value, weight[2 * c :], bias[2 * c :])

    def extra_repr(self) -> str:
        """What ``print(model)`` shows of it."""
        return f"width={self.width}, heads={self.heads}, dropout={self.dropout}"
