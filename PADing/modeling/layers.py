"""Layers that several networks share: attention, residual layers, transformer stacks, multi-layer perceptron."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from PADing.modeling.feed_forward import feed_forward
from PADing.modeling.linear import Linear, linear

Branch = Callable[[Tensor], Tensor]


class Attention(nn.Module):
    """Scaled dot-product attention with input and output projections (Vaswani et al., Sec. 3.2.2).

    State-dict keys: ``in_proj_weight (3C, C)``, ``in_proj_bias``, ``out_proj.weight``, ``out_proj.bias``, as in
    ``torch.nn.MultiheadAttention``. ``width`` C must be a multiple of ``heads`` (else ValueError); ``dropout`` applies
    to attention weights.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"Attention: width ({width}) must be a multiple of heads ({heads})")
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Attend from every query (B, L, C) to the allowed keys: (B, L, C).

        Keys and values are (B, S, C), or (1, S, C) if all images share them; these are projected only once.
        ``allowed`` (bool, broadcastable to (B, heads, L, S)) is True where a query may attend; each row needs one True.
        """
        batch, length, width = query.shape
        if key.shape[0] == 1 and batch > 1 and allowed is None:
            # Queries do not depend on each other, so those of all images form one long sequence for the shared keys.
            return self(query.reshape(1, batch * length, width), key, value).view(batch, length, width)
        inputs, start = (query, key, value), 0
        projected: list[Tensor] = []
        for end in (1, 2, 3):  # the same tensor is projected only once
            if end == 3 or inputs[end] is not inputs[start]:
                rows = slice(start * width, end * width)
                result = linear(inputs[start], self.in_proj_weight[rows], self.in_proj_bias[rows])
                projected += result.chunk(end - start, dim=-1)
                start = end
        q, k, v = (x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2) for x in projected)
        dropout = self.dropout if self.training else 0.0
        result = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout)
        return self.out_proj(result.transpose(1, 2).reshape(batch, length, width))


def xavier_uniform(module: nn.Module) -> None:
    """Initialise all parameters of two and more dimensions."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)


class ResidualLayer(nn.Module):
    """Base of layers of residual branches, with a LayerNorm after each sum or (``pre_norm``) before each branch.

    ``dropout`` applies to the output of every branch and inside the feed-forward network.
    """

    linear1: Linear  # with a ReLU
    linear2: Linear

    def __init__(self, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.drop, self.pre_norm = nn.Dropout(dropout), pre_norm

    def residual(self, x: Tensor, norm: Branch, branch: Branch) -> Tensor:
        """One branch: (B, L, C) -> (B, L, C)."""
        if self.pre_norm:
            return x + self.drop(branch(norm(x)))
        return norm(x + self.drop(branch(x)))

    def feed_forward(self, x: Tensor) -> Tensor:
        """The branch of two linear layers, the first one with a ReLU: (..., C) -> (..., C)."""
        if self.training and self.drop.p:
            return self.linear2(self.drop(self.linear1(x)))
        return feed_forward(x, self.linear1, self.linear2)


def self_attention(attention: Attention, positions: Tensor | None) -> Branch:
    """The self-attention branch; positions are added to queries and keys, not to values."""

    def branch(x: Tensor) -> Tensor:
        placed = _add(x, positions)
        return attention(placed, placed, x)

    return branch


# ---- one branch for each layer, without dropout: Mask2Former's decoder


class SelfAttentionLayer(ResidualLayer):
    """Queries attend to each other."""

    def __init__(self, width: int, heads: int, pre_norm: bool) -> None:
        super().__init__(0.0, pre_norm)
        self.self_attn, self.norm = Attention(width, heads), nn.LayerNorm(width)
        xavier_uniform(self)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """x: (B, Q, C); positions: broadcastable to it. Returns (B, Q, C)."""
        return self.residual(x, self.norm, self_attention(self.self_attn, positions))


class CrossAttentionLayer(ResidualLayer):
    """Queries attend to the allowed positions of a feature map."""

    def __init__(self, width: int, heads: int, pre_norm: bool) -> None:
        super().__init__(0.0, pre_norm)
        self.multihead_attn, self.norm = Attention(width, heads), nn.LayerNorm(width)
        xavier_uniform(self)

    def forward(self, x: Tensor, positions: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None) -> Tensor:
        """x: (B, Q, C); key (memory with its positions), value (memory): (B, S, C); allowed: (B, 1, Q, S) bool."""
        return self.residual(x, self.norm, lambda x: self.multihead_attn(x + positions, key, value, allowed))


class FFNLayer(ResidualLayer):
    """The feed-forward network."""

    def __init__(self, width: int, hidden: int, pre_norm: bool) -> None:
        super().__init__(0.0, pre_norm)
        self.linear1, self.linear2 = Linear(width, hidden, relu=True), Linear(hidden, width)
        self.norm = nn.LayerNorm(width)
        xavier_uniform(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, Q, C) -> (B, Q, C)."""
        return self.residual(x, self.norm, self.feed_forward)


# ---- the classic transformer (Vaswani et al., Sec. 3.1), with positions as in DETR


class TransformerEncoderLayer(ResidualLayer):
    """Self-attention and feed-forward network; keys ``self_attn, linear1, linear2, norm1, norm2``."""

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int, dropout: float, pre_norm: bool) -> None:
        super().__init__(dropout, pre_norm)
        self.self_attn = Attention(d_model, nhead, dropout)
        self.linear1 = Linear(d_model, dim_feedforward, relu=True)
        self.linear2 = Linear(dim_feedforward, d_model)
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """x: (B, S, C); positions: broadcastable to it. Returns (B, S, C)."""
        x = self.residual(x, self.norm1, self_attention(self.self_attn, positions))
        return self.residual(x, self.norm2, self.feed_forward)


class TransformerEncoder(nn.Module):
    """A stack of encoder layers, with a last LayerNorm if they are pre-norm."""

    def __init__(self, layer: TransformerEncoderLayer, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.norm = nn.LayerNorm(layer.norm1.normalized_shape) if layer.pre_norm else None

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """x: (B, S, C); positions: broadcastable to it. Returns (B, S, C)."""
        for layer in self.layers:
            x = layer(x, positions)
        return x if self.norm is None else self.norm(x)


class TransformerDecoderLayer(ResidualLayer):
    """Self-attention, cross-attention and feed-forward network.

    State-dict keys: ``self_attn, multihead_attn, linear1, linear2, norm1, norm2, norm3``.

    ``dropout`` also applies to attention weights. ``noise`` adds standard normal noise between the cross-attention's
    sum and its LayerNorm, in training and in evaluation (PADing's generator); ValueError with ``pre_norm``.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        pre_norm: bool = False,
        noise: bool = False,
    ) -> None:
        super().__init__(dropout, pre_norm)
        if noise and pre_norm:
            raise ValueError("TransformerDecoderLayer: noise is defined for post-norm layers only")
        self.self_attn = Attention(d_model, nhead, dropout)
        self.multihead_attn = Attention(d_model, nhead, dropout)
        self.linear1 = Linear(d_model, dim_feedforward, relu=True)
        self.linear2 = Linear(dim_feedforward, d_model)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(d_model) for _ in range(3))
        self.noise = noise

    def forward(
        self, x: Tensor, memory: Tensor, positions: Tensor | None = None, memory_positions: Tensor | None = None
    ) -> Tensor:
        """x: (B, L, C); memory: (B, S, C) or (1, S, C); positions: broadcastable to them. Returns (B, L, C)."""
        key = _add(memory, memory_positions)
        x = self.residual(x, self.norm1, self_attention(self.self_attn, positions))
        norm2 = self._norm2_of_noisy if self.noise else self.norm2
        x = self.residual(x, norm2, lambda x: self.multihead_attn(_add(x, positions), key, memory))
        return self.residual(x, self.norm3, self.feed_forward)

    def _norm2_of_noisy(self, x: Tensor) -> Tensor:
        # Drawn in the published, sequence-first shape, so that the same seed gives the same numbers.
        return self.norm2(x + torch.randn(x.shape[1], x.shape[0], x.shape[2], device=x.device).transpose(0, 1))


class TransformerDecoder(nn.Module):
    """A stack of decoder layers, then a LayerNorm; keys ``layers.{i}.*, norm.*``.

    PADing's primitive generator and D2Zero's classifier also use it, without positions. ``layer`` is copied
    ``num_layers`` times, so all layers start with the same weights.
    """

    def __init__(self, layer: TransformerDecoderLayer, num_layers: int, return_intermediate: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.norm = nn.LayerNorm(layer.norm1.normalized_shape)
        self.return_intermediate = return_intermediate

    def forward(
        self, target: Tensor, memory: Tensor, positions: Tensor | None = None, memory_positions: Tensor | None = None
    ) -> Tensor:
        """Run the stack on queries (L, B, C): (1, L, B, C), or (layers, L, B, C) with ``return_intermediate``.

        ``memory`` is (S, B, C), or (S, 1, C) if the whole batch shares it; a shared or expanded memory is projected
        only once. Positions are added to queries and keys and must be broadcastable to them.
        """
        if memory.stride(1) == 0:
            memory = memory[:, :1]
        x, memory = target.transpose(0, 1), memory.transpose(0, 1)
        positions, memory_positions = (None if p is None else p.transpose(0, 1) for p in (positions, memory_positions))
        outputs = []
        for layer in self.layers:
            x = layer(x, memory, positions, memory_positions)
            if self.return_intermediate:
                outputs.append(self.norm(x))
        return torch.stack(outputs or [self.norm(x)]).transpose(1, 2)


def _add(x: Tensor, positions: Tensor | None) -> Tensor:
    return x if positions is None else x + positions


class MLP(nn.Module):
    """``num_layers`` linear layers with ReLUs between them; keys ``layers.{i}``."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int) -> None:
        super().__init__()
        widths = [input_dim] + [hidden_dim] * (num_layers - 1) + [output_dim]
        last = num_layers - 1
        self.layers = nn.ModuleList(
            Linear(a, b, relu=i < last) for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., input_dim) -> (..., output_dim)."""
        for layer in self.layers:
            x = layer(x)
        return x
