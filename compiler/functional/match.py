"""Assigning truth to boxes by overlap.

A match is an index [B, N] into the truths of the image: -1 means background, -2 ignored.

Shape legend: B images, N boxes or anchors, G truths (padded).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detc.compiler.functional.sample import IGNORED, take_rows
from detc.nativeops import ops


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
    index_BN, iou_BN = ops.max_iou_assign(
        boxes["boxes"] if isinstance(boxes, dict) else boxes,
        truth["boxes"],
        truth["valid"],
        positive=positive,
        negative=negative,
        min_positive=min_positive,
        low_quality=low_quality,
    )
    if isinstance(boxes, dict):
        index_BN = torch.where(boxes["valid"], index_BN, IGNORED)
    return {"index": index_BN, "iou": iou_BN}


def matched_truth(
    match: dict[str, Tensor],
    truth: dict[str, Tensor],
    pick: dict[str, Tensor] | None = None,
    *,
    agnostic: bool = False,
) -> dict[str, Tensor]:
    """`MatchedTruth`: what each box (or each picked one, with N = K) should become.

    Returns:
        `boxes` [B, N, 4] (of no meaning where the label is negative), `labels` [B, N] int64: a class,
        or 0 if `agnostic`; -1 for background, -2 for ignored; and `index` [B, N], the truth's, likewise.
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
        "index": index_BN,
    }
