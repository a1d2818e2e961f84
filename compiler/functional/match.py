"""Assigning truth to boxes by overlap.

A match is an index [B, N] into the truths of the image: -1 means background, -2 ignored.

Shape legend: B images, N boxes or anchors, G truths (padded).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detc.compiler.functional.boxes import area
from detc.compiler.functional.sample import BACKGROUND, IGNORED, take_rows


def pairwise_iou(boxes_BN4: Tensor, others_BG4: Tensor) -> Tensor:
    """Intersection over union [B, N, G]; 0 where both boxes are empty."""
    low_BNG2 = torch.maximum(boxes_BN4[:, :, None, :2], others_BG4[:, None, :, :2])
    high_BNG2 = torch.minimum(boxes_BN4[:, :, None, 2:], others_BG4[:, None, :, 2:])
    side_BNG2 = (high_BNG2 - low_BNG2).clamp(min=0)
    inter_BNG = side_BNG2[..., 0] * side_BNG2[..., 1]
    union_BNG = area(boxes_BN4)[:, :, None] + area(others_BG4)[:, None, :] - inter_BNG
    return inter_BNG / union_BNG.clamp(min=1e-9)


def max_iou(
    boxes: Any,
    truth: dict[str, Tensor],
    *,
    positive: float,
    negative: float,
    min_positive: float,
    low_quality: str,
) -> dict[str, Tensor]:
    """`MaxIoU`: each box takes the truth that it overlaps most, see `compiler.ops.match.MaxIoU`.

    Args:
        boxes: [N, 4] (the same for all images), [B, N, 4], or proposals with `boxes` and `valid`.
        truth: padded instances.

    Returns:
        `index` [B, N] int64 and `iou` [B, N], the overlap with that truth.
    """
    truth_BG4, real_BG = truth["boxes"], truth["valid"]
    boxes_BN4 = boxes["boxes"] if isinstance(boxes, dict) else boxes
    if boxes_BN4.dim() == 2:
        boxes_BN4 = boxes_BN4.expand(truth_BG4.shape[0], -1, -1)
    iou_BNG = pairwise_iou(boxes_BN4.detach(), truth_BG4).masked_fill(~real_BG[:, None, :], -1.0)
    best_BN, truth_BN = iou_BNG.max(-1)
    index_BN = torch.where(
        best_BN >= positive, truth_BN, torch.where(best_BN >= negative, IGNORED, BACKGROUND)
    )
    if low_quality != "none":
        # the boxes that overlap a truth as much as any box does, if that is enough
        highest_BG = iou_BNG.amax(1)
        claims_BG = real_BG & (highest_BG >= min_positive)
        claimed_BNG = (iou_BNG == highest_BG[:, None, :]) & claims_BG[:, None, :]
        if low_quality == "own":
            index_BN = torch.where(claimed_BNG.any(-1), truth_BN, index_BN)
        else:
            rank_G = torch.arange(1, truth_BG4.shape[1] + 1, device=truth_BG4.device)
            last_BN = (claimed_BNG * rank_G).amax(-1) - 1  # of several claims the last one holds
            index_BN = torch.where(last_BN >= 0, last_BN, index_BN)
    if isinstance(boxes, dict):
        index_BN = torch.where(boxes["valid"], index_BN, IGNORED)
    return {"index": index_BN, "iou": best_BN.clamp(min=0)}


def matched_truth(
    match: dict[str, Tensor],
    truth: dict[str, Tensor],
    pick: dict[str, Tensor] | None = None,
    *,
    agnostic: bool = False,
) -> dict[str, Tensor]:
    """`MatchedTruth`: what each box (or each picked one, with N = K) should become.

    Returns:
        `boxes` [B, N, 4] (of no meaning where the label is negative) and `labels` [B, N] int64: a class,
        or 0 if `agnostic`; -1 for background, -2 for ignored.
    """
    index_BN = match["index"]
    if pick is not None:
        index_BN = take_rows(index_BN, pick["index"])
        index_BN = torch.where(pick["valid"] & ((index_BN >= 0) == pick["positive"]), index_BN, IGNORED)
    safe_BN = index_BN.clamp(min=0)
    labels_BN = torch.zeros_like(index_BN) if agnostic else take_rows(truth["labels"], safe_BN)
    return {
        "boxes": take_rows(truth["boxes"], safe_BN),
        "labels": torch.where(index_BN >= 0, labels_BN, index_BN),
    }
