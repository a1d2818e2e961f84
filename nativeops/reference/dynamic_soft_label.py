"""RTMDet's assignment in pure torch: oracle and fallback of ``detc::dynamic_soft_label``; what runs on CUDA.

B images, G padded truths, N points of all levels, C classes, K candidates of a truth. The pairwise tensors
are [B, G, N].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LARGEST_POWER = 30.0  # of ten, in the centre cost: stays finite in float32


def dynamic_soft_label(
    points_N2: Tensor,
    strides_N: Tensor,
    logits_BNC: Tensor,
    boxes_BN4: Tensor,
    truth_BG4: Tensor,
    labels_BG: Tensor,
    valid_BG: Tensor,
    topk: int,
    radius: float,
    iou_weight: float,
) -> tuple[Tensor, Tensor]:
    """See ``detc.nativeops.ops.dynamic_soft_label``; here every argument is required."""
    if truth_BG4.shape[1] == 0 or points_N2.shape[0] == 0:
        none_BN = torch.full(logits_BNC.shape[:2], -1, dtype=torch.int64, device=logits_BNC.device)
        return none_BN, logits_BNC.new_zeros(none_BN.shape)
    usable_BGN = _usable(points_N2, truth_BG4, valid_BG)
    iou_BGN = torch.where(usable_BGN, _iou(truth_BG4, boxes_BN4), 0.0)
    labels_BG = torch.where(valid_BG, labels_BG, 0)
    cost_BGN = (
        _class_cost(logits_BNC, labels_BG, iou_BGN)
        - iou_weight * torch.log(iou_BGN + 1e-7)
        + _center_cost(points_N2, strides_N, truth_BG4, radius)
    )
    cost_BGN = torch.where(usable_BGN & ~cost_BGN.isnan(), cost_BGN, torch.inf)

    k = min(topk, iou_BGN.shape[-1])
    sum_BG1 = iou_BGN.nan_to_num(0.0, posinf=torch.inf).topk(k, dim=-1).values.sum(-1, keepdim=True)
    count_BG1 = sum_BG1.clamp(1, k).int()
    cheap_BGK, index_BGK = cost_BGN.topk(k, dim=-1, largest=False)
    taken_BGK = (torch.arange(k, device=cheap_BGK.device) < count_BG1) & (cheap_BGK < torch.inf)
    claims_BN, owner_BN = _claims(index_BGK, taken_BGK, cost_BGN.shape[-1])
    # A contested point goes to the cheapest of all truths, not only of the claimants, as in MMDetection.
    truth_BN = torch.where(claims_BN > 1, cost_BGN.min(1).indices, owner_BN)
    positive_BN = claims_BN > 0
    taken_iou_BN = iou_BGN.gather(1, truth_BN[:, None])[:, 0]
    return torch.where(positive_BN, truth_BN, -1), torch.where(positive_BN, taken_iou_BN, 0.0)


def _usable(points_N2: Tensor, truth_BG4: Tensor, valid_BG: Tensor) -> Tensor:
    """Pairs of a valid truth and a point that lies in some valid truth of its image: [B, G, N]."""
    x_N, y_N = points_N2.unbind(-1)
    x1, y1, x2, y2 = (c[..., None] for c in truth_BG4.unbind(-1))
    inside_BGN = (x_N > x1) & (x_N < x2) & (y_N > y1) & (y_N < y2) & valid_BG[..., None]
    return inside_BGN.any(1)[:, None] & valid_BG[..., None]


def _iou(truth_BG4: Tensor, boxes_BN4: Tensor) -> Tensor:
    # coordinate by coordinate, so that nothing of size [B, G, N, 2] is made
    ax1, ay1, ax2, ay2 = (c[..., None] for c in truth_BG4.unbind(-1))
    bx1, by1, bx2, by2 = (c[:, None] for c in boxes_BN4.unbind(-1))
    width_BGN = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    height_BGN = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    inter_BGN = width_BGN * height_BGN
    union_BGN = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - inter_BGN
    return inter_BGN / union_BGN.clamp(min=1e-6)


def _center_cost(points_N2: Tensor, strides_N: Tensor, truth_BG4: Tensor, radius: float) -> Tensor:
    center_BG2 = (truth_BG4[..., :2] + truth_BG4[..., 2:]) / 2
    dx_BGN = center_BG2[..., 0:1] - points_N2[:, 0]
    dy_BGN = center_BG2[..., 1:2] - points_N2[:, 1]
    distance_BGN = torch.sqrt(dx_BGN * dx_BGN + dy_BGN * dy_BGN) / strides_N
    return torch.pow(10.0, (distance_BGN - radius).clamp(max=LARGEST_POWER))


def _class_cost(logits_BNC: Tensor, labels_BG: Tensor, iou_BGN: Tensor) -> Tensor:
    """Quality focal loss (beta 2) summed over classes, with the IoU as the target of the truth's class.

    Only the truth's own class differs from the loss against all zeros, so the sum over classes is done once
    a point.
    """
    probability_BNC = logits_BNC.sigmoid()
    against_zero_BNC = F.softplus(logits_BNC) * probability_BNC * probability_BNC
    index_BGN = labels_BG[..., None].expand(-1, -1, logits_BNC.shape[1])
    logit_BGN = logits_BNC.transpose(1, 2).gather(1, index_BGN)
    zero_BGN = against_zero_BNC.transpose(1, 2).gather(1, index_BGN)
    gap_BGN = iou_BGN - logit_BGN.sigmoid()
    own_BGN = (F.softplus(logit_BGN) - logit_BGN * iou_BGN) * gap_BGN * gap_BGN
    return own_BGN - zero_BGN + against_zero_BNC.sum(-1)[:, None]


def _claims(index_BGK: Tensor, taken_BGK: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """How many truths take each point [B, N], and which one if it is just one (else 0)."""
    b, g, _ = index_BGK.shape
    index_BP, taken_BP = index_BGK.flatten(1), taken_BGK.flatten(1).long()
    none_BN = torch.zeros(b, points, dtype=torch.int64, device=index_BGK.device)
    claims_BN = none_BN.scatter_add(1, index_BP, taken_BP)
    order_BGK = torch.arange(g, device=index_BGK.device)[:, None].expand_as(index_BGK)
    owner_BN = none_BN.scatter_add(1, index_BP, order_BGK.flatten(1) * taken_BP)
    return claims_BN, torch.where(claims_BN == 1, owner_BN, 0)
