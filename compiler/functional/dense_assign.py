"""Which point learns which object, for detectors with one prediction a point. Batched, masked, free of loops.

Shape legend: B images, G padded truths, N points of all levels, C classes, K candidates. The pairwise tensors
are [B, G, N]; nothing larger is made.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detc.compiler.functional.points import distances_to, inside
from detc.compiler.functional.sample import BACKGROUND

TINY = 1e-7  # keeps log(iou) finite


def fcos_assign(
    points: dict[str, Tensor],
    truth: dict[str, Tensor],
    *,
    radius: float | None,
    scale: float,
    inclusive: bool,
) -> dict[str, Tensor]:
    """FCOS targets (Tian et al., 2019): a point learns the smallest object around it.

    The object must suit the level: the largest of the point's four distances lies between `scale / 2` and
    `scale` strides; the finest level has no lower bound, the coarsest no upper one. `radius` limits points to
    so many strides around the object's centre (None: the whole box). `inclusive` counts the bounds in.

    Returns:
        labels [B, N] int64 (-1 is background), boxes [B, N, 4], centerness [B, N], positive [B, N] float
        (1 or 0), total [], the number of positives, and index [B, N] int64, which truth (-1: none).
    """
    xy_N2, stride_N = points["xy"], points["stride"]
    boxes_BG4, valid_BG = truth["boxes"].float(), truth["valid"]
    left, top, right, bottom = distances_to(xy_N2, boxes_BG4)
    nearest_BGN = torch.minimum(torch.minimum(left, top), torch.minimum(right, bottom))
    farthest_BGN = torch.maximum(torch.maximum(left, top), torch.maximum(right, bottom))
    infinity = torch.full_like(stride_N, float("inf"))
    low_N = torch.where(stride_N == stride_N.min(), -infinity, stride_N * (scale / 2))
    high_N = torch.where(stride_N == stride_N.max(), infinity, stride_N * scale)
    if inclusive:
        suits_BGN = (farthest_BGN >= low_N) & (farthest_BGN <= high_N)
    else:
        suits_BGN = (farthest_BGN > low_N) & (farthest_BGN < high_N)
    match_BGN = suits_BGN & (nearest_BGN > 0) & valid_BG[..., None]
    if radius is not None:
        # |x - cx| is half the difference of the distances to the left and the right side
        off_BGN = torch.maximum((left - right).abs(), (top - bottom).abs()) * 0.5
        match_BGN = match_BGN & (off_BGN < stride_N * radius)
    area_BG = (boxes_BG4[..., 2] - boxes_BG4[..., 0]) * (boxes_BG4[..., 3] - boxes_BG4[..., 1])
    cost_BGN = torch.where(match_BGN, area_BG[..., None], float("inf"))
    least_BN, index_BN = cost_BGN.min(1)
    positive_BN = least_BN < float("inf")
    return _targets(xy_N2, truth, index_BN, positive_BN)


def _targets(
    xy_N2: Tensor, truth: dict[str, Tensor], index_BN: Tensor, positive_BN: Tensor
) -> dict[str, Tensor]:
    """What each point learns from the object `index_BN` that it was given, where `positive_BN`."""
    boxes_BN4 = take_boxes(truth["boxes"].float(), index_BN)
    return {
        "labels": torch.where(positive_BN, truth["labels"].gather(1, index_BN), BACKGROUND),
        "boxes": boxes_BN4,
        "centerness": torch.where(positive_BN, centerness(xy_N2, boxes_BN4), 0.0),
        "positive": positive_BN.float(),
        "total": positive_BN.sum().float(),
        "index": torch.where(positive_BN, index_BN, -1),
    }


def centerness(xy_N2: Tensor, boxes_BN4: Tensor) -> Tensor:
    """sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)) of each point in its own box: [B, N]."""
    before_BN2 = (xy_N2 - boxes_BN4[..., :2]).clamp(min=0)
    after_BN2 = (boxes_BN4[..., 2:] - xy_N2).clamp(min=0)
    ratio_BN2 = torch.minimum(before_BN2, after_BN2) / torch.maximum(before_BN2, after_BN2).clamp(min=TINY)
    return ratio_BN2.prod(-1).sqrt()


def atss_assign(
    levels: list[Tensor], points: dict[str, Tensor], truth: dict[str, Tensor], *, topk: int, scale: float
) -> dict[str, Tensor]:
    """ATSS targets (Zhang et al., 2020) with one square anchor of `scale` strides at each point.

    For each object: the `topk` points of each level nearest to its centre are candidates; the threshold is
    the mean plus the standard deviation of their IoUs; candidates above it whose point lies in the object
    are positive. A point that several objects claim learns the one of highest IoU.

    Returns:
        As `fcos_assign`.
    """
    xy_N2, stride_N = points["xy"], points["stride"]
    boxes_BG4, valid_BG = truth["boxes"].float(), truth["valid"]
    half_N1 = stride_N[:, None] * (scale / 2)
    iou_BGN = pairwise_iou(boxes_BG4, torch.cat((xy_N2 - half_N1, xy_N2 + half_N1), -1)[None])
    center_BG2 = (boxes_BG4[..., :2] + boxes_BG4[..., 2:]) / 2
    offset_BGN = torch.cdist(center_BG2, xy_N2.expand(center_BG2.shape[0], -1, -1))
    chosen, start = [], 0
    for level_BCHW in levels:
        n = level_BCHW.shape[-2] * level_BCHW.shape[-1]
        near_BGK = offset_BGN[..., start : start + n].topk(min(topk, n), dim=-1, largest=False).indices
        chosen.append(near_BGK + start)
        start += n
    candidates_BGK = torch.cat(chosen, -1)
    candidate_iou_BGK = iou_BGN.gather(-1, candidates_BGK)
    threshold_BG1 = candidate_iou_BGK.mean(-1, keepdim=True) + candidate_iou_BGK.std(-1, keepdim=True)
    above_BGK = (candidate_iou_BGK >= threshold_BG1).float()
    match_BGN = torch.zeros_like(iou_BGN).scatter(-1, candidates_BGK, above_BGK) > 0
    match_BGN = match_BGN & inside(xy_N2, boxes_BG4) & valid_BG[..., None]
    best_BN, index_BN = torch.where(match_BGN, iou_BGN, -1.0).max(1)
    positive_BN = best_BN >= 0
    return _targets(xy_N2, truth, index_BN, positive_BN)


def pairwise_iou(boxes_BG4: Tensor, others_BN4: Tensor) -> Tensor:
    """IoU of every box with every other: [B, G, N]; others may be one set [1, N, 4] for all images."""
    ax0, ay0, ax1, ay1 = (c[..., None] for c in boxes_BG4.unbind(-1))
    bx0, by0, bx1, by1 = (c[:, None] for c in others_BN4.unbind(-1))
    width_BGN = (torch.minimum(ax1, bx1) - torch.maximum(ax0, bx0)).clamp(min=0)
    height_BGN = (torch.minimum(ay1, by1) - torch.maximum(ay0, by0)).clamp(min=0)
    overlap_BGN = width_BGN * height_BGN
    union_BGN = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - overlap_BGN
    return overlap_BGN / union_BGN.clamp(min=1e-6)


def take_boxes(boxes_BG4: Tensor, index_BN: Tensor) -> Tensor:
    """The truth's box for each point: [B, N, 4]."""
    return boxes_BG4.gather(1, index_BN[..., None].expand(-1, -1, 4))
