"""RTMDet's assignment: dynamic k by IoU, cost from class, overlap and a soft centre prior.

Shape legend: B images, G padded truths, N points of all levels, C classes, K candidates of a truth. The
pairwise tensors are [B, G, N]; nothing larger is made.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from detc.compiler.functional.dense_assign import TINY, pairwise_iou, take_boxes
from detc.compiler.functional.points import flat, inside
from detc.compiler.functional.sample import BACKGROUND

LARGEST_POWER = 30.0  # of ten, in the centre cost: stays finite in float32


def dynamic_soft_label(
    points: dict[str, Tensor],
    logits: Tensor | list[Tensor],
    boxes_BN4: Tensor,
    truth: dict[str, Tensor],
    *,
    classes: int,
    topk: int,
    radius: float,
    iou_weight: float,
) -> dict[str, Tensor]:
    """Targets of RTMDet (Lyu et al., 2022, section 3.3; SimOTA of Ge et al., 2021, with soft labels).

    The cost of a point for an object is the quality focal loss against the IoU as soft label, plus
    `iou_weight` times -log IoU, plus 10 to the power (distance from the object's centre in strides -
    `radius`). Only points inside at least one object take part. Each object takes its k cheapest points, k
    being the sum of its `topk` largest IoUs, rounded down, at least 1; a point that several objects take
    learns the one for which it is cheapest.

    Args:
        points: `xy` [N, 2], `stride` [N].
        logits: [B, N, C] or maps [B, C, H, W] of all levels.
        boxes_BN4: decoded predictions, xyxy in pixels.
        truth: boxes [B, G, 4], labels [B, G], valid [B, G].

    Returns:
        labels [B, N] int64 (-1 is background), scores [B, N, C] (the IoU at the label, else 0), boxes
        [B, N, 4], weight [B, N] (the IoU of positives, else 0), total [] (the sum of weights). No gradient.
    """
    logits_BNC = flat(logits, classes).detach().float()
    gt_BG4, valid_BG = truth["boxes"].float(), truth["valid"]
    labels_BG = truth["labels"].clamp(0, classes - 1)
    usable_BGN = _usable(points["xy"], gt_BG4, valid_BG)
    iou_BGN = pairwise_iou(gt_BG4, boxes_BN4.detach().float())
    iou_BGN = torch.where(usable_BGN, iou_BGN, 0.0)
    cost_BGN = (
        _class_cost(logits_BNC, labels_BG, iou_BGN)
        - iou_weight * torch.log(iou_BGN + TINY)
        + _center_cost(points, gt_BG4, radius)
    )
    cost_BGN = torch.where(usable_BGN, cost_BGN, float("inf"))

    k = min(topk, iou_BGN.shape[-1])
    count_BG1 = iou_BGN.topk(k, dim=-1).values.sum(-1, keepdim=True).int().clamp(min=1)
    cheap_BGK, index_BGK = cost_BGN.topk(k, dim=-1, largest=False)
    taken_BGK = (torch.arange(k, device=cheap_BGK.device) < count_BG1) & (cheap_BGK < float("inf"))
    claims_BN, claimant_BN = _claims(index_BGK, taken_BGK, cost_BGN.shape[-1])
    # a contested point goes to the cheapest of all objects, not only of the claimants, as in the reference
    gt_BN = torch.where(claims_BN > 1, cost_BGN.min(1).indices, claimant_BN)
    positive_BN = claims_BN > 0
    quality_BN = torch.where(positive_BN, iou_BGN.gather(1, gt_BN[:, None])[:, 0], 0.0)
    found_BN = labels_BG.gather(1, gt_BN)
    return {
        "labels": torch.where(positive_BN, found_BN, BACKGROUND),
        "scores": torch.zeros_like(logits_BNC).scatter(-1, found_BN[..., None], quality_BN[..., None]),
        "boxes": take_boxes(gt_BG4, gt_BN),
        "weight": quality_BN,
        "total": quality_BN.sum(),
    }


def _claims(index_BGK: Tensor, taken_BGK: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """How many objects take each point [B, N], and which one if it is just one (else 0)."""
    b, g, _ = index_BGK.shape
    index_BP, taken_BP = index_BGK.flatten(1), taken_BGK.flatten(1).long()
    none_BN = torch.zeros(b, points, dtype=torch.int64, device=index_BGK.device)
    claims_BN = none_BN.scatter_add(1, index_BP, taken_BP)
    order_BGK = torch.arange(g, device=index_BGK.device)[:, None].expand_as(index_BGK)
    claimant_BN = none_BN.scatter_add(1, index_BP, order_BGK.flatten(1) * taken_BP)
    return claims_BN, torch.where(claims_BN == 1, claimant_BN, 0)


def _usable(xy_N2: Tensor, gt_BG4: Tensor, valid_BG: Tensor) -> Tensor:
    """Pairs of a real object and a point that lies in some real object of its image: [B, G, N]."""
    anywhere_BN = (inside(xy_N2, gt_BG4) & valid_BG[..., None]).any(1)
    return anywhere_BN[:, None] & valid_BG[..., None]


def _center_cost(points: dict[str, Tensor], gt_BG4: Tensor, radius: float) -> Tensor:
    """10 ** (distance of point and object's centre in strides - radius): [B, G, N]."""
    center_BG2 = (gt_BG4[..., :2] + gt_BG4[..., 2:]) / 2
    xy_N2, stride_N = points["xy"], points["stride"]
    dx_BGN = center_BG2[..., 0:1] - xy_N2[:, 0]
    dy_BGN = center_BG2[..., 1:2] - xy_N2[:, 1]
    strides_BGN = torch.sqrt(dx_BGN * dx_BGN + dy_BGN * dy_BGN) / stride_N
    return torch.pow(10.0, (strides_BGN - radius).clamp(max=LARGEST_POWER))


def _class_cost(logits_BNC: Tensor, labels_BG: Tensor, iou_BGN: Tensor) -> Tensor:
    """Quality focal loss (beta 2) summed over classes, with the IoU as the target of the object's class.

    Only the object's own class differs from the loss against all zeros, so the sum over classes is done once
    a point: [B, G, N] without a class dimension.
    """
    probability_BNC = logits_BNC.sigmoid()
    against_zero_BNC = F.softplus(logits_BNC) * probability_BNC * probability_BNC
    index_BGN = labels_BG[..., None].expand(-1, -1, logits_BNC.shape[1])
    logit_BGN = logits_BNC.transpose(1, 2).gather(1, index_BGN)
    zero_BGN = against_zero_BNC.transpose(1, 2).gather(1, index_BGN)
    gap_BGN = iou_BGN - logit_BGN.sigmoid()
    own_BGN = (F.softplus(logit_BGN) - logit_BGN * iou_BGN) * gap_BGN * gap_BGN
    return own_BGN - zero_BGN + against_zero_BNC.sum(-1)[:, None]
