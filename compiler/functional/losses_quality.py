"""Losses whose targets are numbers between 0 and 1: quality focal, varifocal, binary cross entropy.

Shape legend: B images, N points or boxes, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from detc.compiler.functional.normaliser import normaliser
from detc.compiler.functional.points import flat


def quality_focal(
    logits: Tensor | list[Tensor],
    target_BNC: Tensor,
    norm: Tensor | None = None,
    *,
    beta: float,
    least: float = 1.0,
) -> Tensor:
    """|target - p| ** beta times the binary cross entropy, summed, over max(norm, least): a scalar.

    `logits` is [B, N, C] or maps [B, C, H, W] of all levels. `norm` is the sum of the targets by default.
    Generalised focal loss, Li et al., 2020, equation 5.
    """
    from detc.nativeops import ops

    logits_BNC = flat(logits, target_BNC.shape[-1]).float()
    loss = ops.quality_focal_loss(logits_BNC, target_BNC.float(), beta=beta, reduction="sum")
    return _averaged(loss, target_BNC if norm is None else norm, least)


def varifocal(
    logits: Tensor | list[Tensor],
    target_BNC: Tensor,
    norm: Tensor | None = None,
    *,
    alpha: float,
    gamma: float,
    least: float = 1.0,
) -> Tensor:
    """Varifocal loss (Zhang et al., 2021, equation 2), summed, over max(norm, least); shapes as above."""
    from detc.nativeops import ops

    logits_BNC = flat(logits, target_BNC.shape[-1]).float()
    loss = ops.varifocal_loss(logits_BNC, target_BNC.float(), alpha=alpha, gamma=gamma, reduction="sum")
    return _averaged(loss, target_BNC if norm is None else norm, least)


def binary_cross_entropy(
    logits: Tensor | list[Tensor],
    target: Tensor,
    weight: Tensor | None = None,
    norm: Tensor | None = None,
    *,
    least: float = 1.0,
) -> Tensor:
    """Binary cross entropy against numbers in [0, 1], weighted, over max(norm, least): a scalar.

    `logits` is of the target's shape, [B, N, 1] for a target [B, N], or maps of all levels. `norm` is the
    sum of the weights by default.
    """
    width = target.shape[-1] if target.dim() == 3 else 1
    rows = flat(logits, width).float()
    if rows.dim() == target.dim() + 1:
        rows = rows.squeeze(-1)
    loss = F.binary_cross_entropy_with_logits(rows, target.float(), reduction="none")
    if weight is None:
        weight = torch.ones_like(loss)
    return _averaged(loss * weight, weight if norm is None else norm, least)


def distribution_focal(
    logits: Tensor | list[Tensor],
    target_BN4: Tensor,
    weight_BN: Tensor | None = None,
    norm: Tensor | None = None,
    *,
    bins: int,
    least: float = 1.0,
) -> Tensor:
    """Cross entropy against the two bins around each distance (Li et al., 2020, equation 6): a scalar.

    `logits` is [B, N, 4 * (bins + 1)] or such maps of all levels; `target_BN4` holds distances in bins, taken
    as between 0 and `bins`. The mean of the four sides is weighted; `norm` is the sum of weights by default.
    """
    rows = flat(logits, 4 * (bins + 1)).float()
    rows_BN4D = rows.unflatten(-1, (4, bins + 1))
    target_BN4 = target_BN4.float().clamp(0, bins - 0.01)
    low_BN4 = target_BN4.floor().long()
    share_BN4 = target_BN4 - low_BN4
    log_BN4D = F.log_softmax(rows_BN4D, -1)
    low = log_BN4D.gather(-1, low_BN4[..., None]).squeeze(-1)
    high = log_BN4D.gather(-1, low_BN4[..., None] + 1).squeeze(-1)
    loss_BN = -(low * (1 - share_BN4) + high * share_BN4).mean(-1)
    weight = torch.ones_like(loss_BN) if weight_BN is None else weight_BN
    return _averaged(loss_BN * weight, weight if norm is None else norm, least)


def _averaged(loss: Tensor, norm: Tensor, least: float) -> Tensor:
    return loss.sum() / normaliser(norm.sum(), least)
