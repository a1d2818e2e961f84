"""RTMDet's assignment: dynamic k by IoU, cost from class, overlap and a soft centre prior.

Shape legend: B images, G padded truths, N points of all levels, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detc.compiler.functional.dense_assign import take_boxes
from detc.compiler.functional.points import flat
from detc.compiler.functional.sample import BACKGROUND


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
        [B, N, 4], weight [B, N] (the IoU of positives, else 0), total [] (the sum of weights), index [B, N]
        int64 (which truth, -1: none). No gradient.
    """
    from detc.nativeops import ops

    logits_BNC = flat(logits, classes)
    gt_BG4, labels_BG = truth["boxes"].float(), truth["labels"].clamp(0, classes - 1)
    index_BN, quality_BN = ops.dynamic_soft_label(
        points["xy"],
        points["stride"],
        logits_BNC,
        boxes_BN4,
        gt_BG4,
        labels_BG,
        truth["valid"],
        topk=topk,
        radius=radius,
        iou_weight=iou_weight,
    )
    gt_BN = index_BN.clamp(min=0)
    found_BN = labels_BG.gather(1, gt_BN)
    nothing_BNC = torch.zeros_like(logits_BNC, dtype=torch.float32)
    return {
        "labels": torch.where(index_BN >= 0, found_BN, BACKGROUND),
        "scores": nothing_BNC.scatter(-1, found_BN[..., None], quality_BN[..., None]),
        "boxes": take_boxes(gt_BG4, gt_BN),
        "weight": quality_BN,
        "total": quality_BN.sum(),
        "index": index_BN,
    }
