"""One-to-one matching of queries and truth (Carion et al., DETR, ECCV 2020).

Shape legend: B images, N queries, G truths, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from detc.compiler.functional.normaliser import normaliser
from detc.nativeops import ops


def class_cost(
    logits_BNC: Tensor, truth: dict[str, Tensor], *, kind: str, alpha: float, gamma: float
) -> Tensor:
    """`ClassCost`: [B, N, G], without gradient."""
    logits_BNC = logits_BNC.detach().float()
    if kind == "softmax":
        cost_BNC = -logits_BNC.softmax(-1)
    else:
        p_BNC = logits_BNC.sigmoid()
        yes_BNC = alpha * (1 - p_BNC) ** gamma * -(p_BNC + 1e-8).log()
        no_BNC = (1 - alpha) * p_BNC**gamma * -(1 - p_BNC + 1e-8).log()
        cost_BNC = yes_BNC - no_BNC
    index_BNG = truth["labels"][:, None].expand(-1, logits_BNC.shape[1], -1)
    return cost_BNC.gather(2, index_BNG)


def hungarian_match(cost_BNG: Tensor, truth: dict[str, Tensor]) -> dict[str, Tensor]:
    """`HungarianMatch`: `index` [B, N], `row` [B, G], `labels` [B, N], `valid` [B, G].

    A cost that is not finite stands for a pair of last resort, so that a diverging query disturbs no other.
    """
    worst = torch.finfo(cost_BNG.dtype).max / 1e4
    cost_BNG = cost_BNG.detach().nan_to_num(nan=worst, posinf=worst, neginf=-worst)
    found = ops.linear_assignment(cost_BNG, col_valid_BM=truth["valid"])
    index_BN, row_BG = found.col_of_row, found.row_of_col
    labels_BN = truth["labels"].gather(1, index_BN.clamp(min=0))
    return {
        "index": index_BN,
        "row": row_BG,
        "labels": torch.where(index_BN >= 0, labels_BN, -1),
        "valid": row_BG >= 0,
    }


def set_cross_entropy(logits_BNC: Tensor, labels_BN: Tensor, *, background: float) -> Tensor:
    """`SetCrossEntropy`: a scalar; labels below 0 stand for the last column."""
    logits_BCN = logits_BNC.float().transpose(1, 2)
    last = logits_BNC.shape[-1] - 1
    target_BN = torch.where(labels_BN >= 0, labels_BN, last)
    loss_BN = F.cross_entropy(logits_BCN, target_BN, reduction="none")
    weight_BN = torch.where(labels_BN >= 0, 1.0, background)
    return (loss_BN * weight_BN).sum() / normaliser(weight_BN.sum(), torch.finfo(torch.float32).tiny)
