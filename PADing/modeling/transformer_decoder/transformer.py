"""The classic transformer encoder and decoder (Vaswani et al., Sec. 3.1), with positions as in DETR.

The decoder also serves as PADing's primitive generator and as D2Zero's classifier, which use no positions.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from PADing.modeling.attention import Attention


class TransformerEncoderLayer(nn.Module):
    """Self-attention and feed-forward network; keys ``self_attn, linear1, linear2, norm1, norm2``."""

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1, pre_norm: bool = False
    ) -> None:
        super().__init__()
        self.self_attn = Attention(d_model, nhead, dropout)
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.drop = nn.Dropout(dropout)
        self.pre_norm = pre_norm

    def forward(self, x: Tensor, positions: Tensor, allowed: Tensor | None = None) -> Tensor:
        """x: (B, S, C); positions: broadcastable to it; allowed: see :class:`Attention`. Returns (B, S, C)."""
        if self.pre_norm:
            x = x + self._attend(self.norm1(x), positions, allowed)
            return x + self._feed_forward(self.norm2(x))
        x = self.norm1(x + self._attend(x, positions, allowed))
        return self.norm2(x + self._feed_forward(x))

    def _attend(self, x: Tensor, positions: Tensor, allowed: Tensor | None) -> Tensor:
        placed = x + positions
        return self.drop(self.self_attn(placed, placed, x, allowed))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.drop(self.linear2(self.drop(F.relu(self.linear1(x), inplace=True))))


class TransformerEncoder(nn.Module):
    """A stack of encoder layers, with a last LayerNorm if they are pre-norm: (B, S, C) -> (B, S, C)."""

    def __init__(self, layer: TransformerEncoderLayer, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.norm = nn.LayerNorm(layer.norm1.normalized_shape) if layer.pre_norm else None

    def forward(self, x: Tensor, positions: Tensor, allowed: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = layer(x, positions, allowed)
        return x if self.norm is None else self.norm(x)


class TransformerDecoderLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward network.

    State-dict keys: ``self_attn, multihead_attn, linear1, linear2, norm1, norm2, norm3``.

    Args:
        d_model: width C. nhead: attention heads.
        dim_feedforward: width inside the feed-forward network.
        dropout: on attention weights, on every residual branch and inside the feed-forward network.
        pre_norm: LayerNorm before each branch instead of behind each sum.
        noise: add standard normal noise behind the cross-attention's sum, before its LayerNorm, in training and in
            evaluation (PADing's generator); post-norm only.
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
        super().__init__()
        if noise and pre_norm:
            raise ValueError("TransformerDecoderLayer: noise is defined for post-norm layers only")
        self.self_attn = Attention(d_model, nhead, dropout)
        self.multihead_attn = Attention(d_model, nhead, dropout)
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(d_model) for _ in range(3))
        self.drop = nn.Dropout(dropout)
        self.pre_norm, self.noise = pre_norm, noise

    def forward(
        self, x: Tensor, memory: Tensor, positions: Tensor | None = None, memory_positions: Tensor | None = None
    ) -> Tensor:
        """x: (B, L, C); memory: (B, S, C) or (1, S, C); positions: broadcastable to them. Returns (B, L, C)."""
        if self.pre_norm:
            x = x + self._look_around(self.norm1(x), positions)
            x = x + self._look_at(memory, self.norm2(x), positions, memory_positions)
            return x + self._feed_forward(self.norm3(x))
        x = self.norm1(x + self._look_around(x, positions))
        x = x + self._look_at(memory, x, positions, memory_positions)
        if self.noise:
            # Drawn in the sequence-first shape of the published code, so that equal draws give equal numbers.
            x = x + torch.randn(x.shape[1], x.shape[0], x.shape[2], device=x.device).transpose(0, 1)
        x = self.norm2(x)
        return self.norm3(x + self._feed_forward(x))

    def _look_around(self, x: Tensor, positions: Tensor | None) -> Tensor:
        placed = _add(x, positions)
        return self.drop(self.self_attn(placed, placed, x))

    def _look_at(self, memory: Tensor, x: Tensor, positions: Tensor | None, memory_positions: Tensor | None) -> Tensor:
        return self.drop(self.multihead_attn(_add(x, positions), _add(memory, memory_positions), memory))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.drop(self.linear2(self.drop(F.relu(self.linear1(x), inplace=True))))


class TransformerDecoder(nn.Module):
    """A stack of decoder layers behind a last LayerNorm; keys ``layers.{i}.*, norm.*``.

    Args:
        layer: copied ``num_layers`` times, so all layers start from the same weights.
        return_intermediate: return the normalised output of every layer instead of the last one's only.
    """

    def __init__(self, layer: TransformerDecoderLayer, num_layers: int, return_intermediate: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.norm = nn.LayerNorm(layer.norm1.normalized_shape)
        self.return_intermediate = return_intermediate

    def forward(
        self,
        target: Tensor,
        memory: Tensor,
        positions: Tensor | None = None,
        memory_positions: Tensor | None = None,
    ) -> Tensor:
        """Run the stack on sequence-first tensors.

        Args:
            target: (L, B, C) queries.
            memory: (S, B, C), or (S, 1, C) for a memory that the whole batch shares: it is then projected only once.
                A memory expanded along the batch counts as shared.
            positions, memory_positions: added to queries and keys; broadcastable to target and memory.

        Returns:
            (1, L, B, C), or (layers, L, B, C) with ``return_intermediate``.
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
