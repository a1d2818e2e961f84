"""Masks of queries: drawn as products, attended with, matched and learned at points.

Shape legend: B images, Q or N queries, G truths, P points, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from detc.compiler.functional.normaliser import normaliser


def query_masks(query_BQC: Tensor, pixels_BCHW: Tensor) -> Tensor:
    """`QueryMasks`: logits [B, Q, H, W]."""
    return torch.einsum("bqc,bchw->bqhw", query_BQC, pixels_BCHW)


def masked_view(masks_BQHW: Tensor, like_BCHW: Tensor) -> Tensor:
    """`MaskedView`: bool [B, Q, h w], true where the mask is at least one half; all true where none is."""
    small_BQhw = F.interpolate(
        masks_BQHW.detach(), size=like_BCHW.shape[-2:], mode="bilinear", align_corners=False
    )
    seen_BQS = small_BQhw.sigmoid().flatten(2) >= 0.5
    return seen_BQS | ~seen_BQS.any(-1, keepdim=True)


def mask_cost(logits_BNP: Tensor, target_BGP: Tensor, *, bce: float, dice: float) -> Tensor:
    """`MaskCost`: [B, N, G], without gradient.

    The cross entropy of a logit x is softplus(-x) where the truth is 1 and softplus(x) where it is 0, so that
    the mean over points is two products of matrices.
    """
    logits_BNP = logits_BNP.detach().float()
    target_BPG = target_BGP.float().transpose(1, 2)
    points = logits_BNP.shape[-1]
    entropy_BNG = (
        torch.matmul(F.softplus(-logits_BNP), target_BPG)
        + torch.matmul(F.softplus(logits_BNP), 1 - target_BPG)
    ) / points
    shares_BNP = logits_BNP.sigmoid()
    both_BNG = torch.matmul(shares_BNP, target_BPG)
    total_BNG = shares_BNP.sum(-1, keepdim=True) + target_BPG.sum(1, keepdim=True)
    return bce * entropy_BNG + dice * (1 - (2 * both_BNG + 1) / (total_BNG + 1))


def row_bce(logits: Tensor, target: Tensor, weight_BN: Tensor | None = None) -> Tensor:
    """`RowBCE`: a scalar, 0 where no row counts.

    Args:
        logits, target: [B, N, ...].
        weight_BN: bool or numbers; rows of weight 0 do not count.
    """
    loss_BN = (
        F.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none")
        .flatten(2)
        .mean(-1)
    )
    if weight_BN is None:
        return loss_BN.mean()
    weight_BN = weight_BN.float()
    return (loss_BN * weight_BN).sum() / normaliser(weight_BN.sum(), 1)
