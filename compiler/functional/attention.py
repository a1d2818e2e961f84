"""Attention layers: dot-product attention in heads, and multi-scale deformable attention.

Shape legend: B images, N queries, K keys, S positions of all levels, L levels, P points, M heads, D channels of
a head, C = M D channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detc.nativeops import ops


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention (Vaswani et al., 2017) with separate projections `q`, `k`, `v`, `out`."""

    def __init__(self, width: int, key_width: int, value_width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.width, self.key_width, self.value_width = width, key_width, value_width
        self.heads, self.dropout = heads, dropout
        self.q, self.k = nn.Linear(width, width), nn.Linear(key_width, width)
        self.v, self.out = nn.Linear(value_width, width), nn.Linear(width, width)
        for layer in (self.q, self.k, self.v):
            # as if the three were one matrix of 3 C rows, which is how torch's own layer begins
            nn.init.xavier_uniform_(layer.weight, gain=1 / math.sqrt(2))
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        query_BNC: Tensor,
        key_BKC: Tensor,
        value_BKC: Tensor,
        valid_BK: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """[B, N, C]. `valid_BK` and `mask` ([N, K], [B, N, K], [B, M, N, K]): true where a key may be seen."""
        q_BMND, k_BMKD, v_BMKD = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x in (self.q(query_BNC), self.k(key_BKC), self.v(value_BKC))
        )
        bias = additive_mask(valid_BK, mask, q_BMND.dtype)
        dropout = self.dropout if self.training else 0.0
        seen_BMND = F.scaled_dot_product_attention(q_BMND, k_BMKD, v_BMKD, attn_mask=bias, dropout_p=dropout)
        return self.out(seen_BMND.transpose(1, 2).flatten(2))


def additive_mask(valid_BK: Tensor | None, mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """What to add to scores [B, M, N, K]: 0 where both masks are true, else the least number of `dtype`.

    It is not infinite, so that a row without any allowed key becomes a plain mean and not NaN.
    """
    allowed: Tensor | None = None
    if mask is not None:
        allowed = mask if mask.dim() == 4 else mask[:, None] if mask.dim() == 3 else mask[None, None]
    if valid_BK is not None:
        valid_B11K = valid_BK[:, None, None]
        allowed = valid_B11K if allowed is None else allowed & valid_B11K
    if allowed is None:
        return None
    return torch.zeros((), dtype=dtype, device=allowed.device).masked_fill(~allowed, torch.finfo(dtype).min)


def numbers(values: Sequence[int], like: Tensor) -> Tensor:
    """Sizes as a tensor of the dtype and device of `like`; they are symbolic in graphs of dynamic size."""
    if all(isinstance(n, int) for n in values):
        return like.new_tensor(values)
    return torch.stack([like.new_full((), n) for n in values])


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention (Zhu et al., 2021) around points or boxes."""

    def __init__(self, width: int, value_width: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.width, self.value_width = width, value_width
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(width, heads * levels * points * 2)
        self.weights = nn.Linear(width, heads * levels * points)
        self.value, self.out = nn.Linear(value_width, width), nn.Linear(width, width)
        self._initialise()

    def _initialise(self) -> None:
        """Each head begins with a direction of its own, its points one cell apart, all weights alike."""
        nn.init.zeros_(self.offsets.weight)
        angle_M = torch.arange(self.heads) * (2 * math.pi / self.heads)
        way_M2 = torch.stack((angle_M.cos(), angle_M.sin()), -1)
        way_M2 = way_M2 / way_M2.abs().amax(-1, keepdim=True)
        steps_P = torch.arange(1, self.points + 1)
        start_MLP2 = way_M2[:, None, None] * steps_P[:, None]
        with torch.no_grad():
            self.offsets.bias.copy_(start_MLP2.expand(-1, self.levels, -1, -1).flatten())
        for parameter in (self.weights.weight, self.weights.bias, self.value.bias, self.out.bias):
            nn.init.zeros_(parameter)
        nn.init.xavier_uniform_(self.value.weight)
        nn.init.xavier_uniform_(self.out.weight)

    def forward(
        self,
        query_BNC: Tensor,
        reference: Tensor,
        value_BSC: Tensor,
        levels: list[Tensor],
        grid: dict[str, Tensor],
    ) -> Tensor:
        """[B, N, C].

        Args:
            query_BNC: queries, their positions added.
            reference: [B, N, 2] (x, y) or [B, N, 4] (center x, center y, width, height), in fractions of the
                image's content.
            value_BSC: rows of all levels, by level, row and column.
            levels: maps whose sizes say how the rows lie.
            grid: what `level_grid` gives for them.
        """
        sizes = [(x.shape[-2], x.shape[-1]) for x in levels]
        value_BSC = self.value(value_BSC).masked_fill(~grid["valid"][..., None], 0.0)
        value_BSMD = value_BSC.unflatten(-1, (self.heads, -1))
        shape = (self.heads, self.levels, self.points)
        offsets_BNMLP2 = self.offsets(query_BNC).float().unflatten(-1, (*shape, 2))
        weights_BNMX = self.weights(query_BNC).float().unflatten(-1, (self.heads, -1)).softmax(-1)
        # fractions of the content become fractions of the padded map
        place_BNL2 = reference[:, :, None, :2].float() * grid["ratio"][:, None]
        if reference.shape[-1] == 2:
            step = numbers([n for h, w in sizes for n in (w, h)], place_BNL2).view(-1, 1, 2)
            offsets_BNMLP2 = offsets_BNMLP2 / step
        else:
            extent_BNL2 = reference[:, :, None, 2:].float() * grid["ratio"][:, None]
            offsets_BNMLP2 = offsets_BNMLP2 / self.points * extent_BNL2[:, :, None, :, None] * 0.5
        locations_BNMLP2 = place_BNL2[:, :, None, :, None] + offsets_BNMLP2
        weights_BNMLP = weights_BNMX.unflatten(-1, (self.levels, self.points))
        seen_BNC = ops.ms_deform_attn(value_BSMD, sizes, locations_BNMLP2, weights_BNMLP)
        return self.out(seen_BNC)
